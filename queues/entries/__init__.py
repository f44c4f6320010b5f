"""Entries as clients know them: the calls below /v1/{type}/, their words, and what they do."""
