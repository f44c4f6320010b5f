"""Programs about the project itself, for people and for CI: ``python -m tests.tools.<name>``."""
