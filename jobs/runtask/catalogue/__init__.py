"""Job definitions, what the server offers to run over an object: ``parsing`` is pure, ``folder`` reads."""
