"""Programs about the project and its tests, for people and for CI: ``python -m tests.tools.<name>``."""
