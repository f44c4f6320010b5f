"""Jobs over HTTP: registered, listed, read with elements, outputs and listings, cancelled, retried."""
