"""Parts of the mover that need no storage."""
