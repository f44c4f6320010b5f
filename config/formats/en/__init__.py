"""English: the only language."""
