"""/api/v1: every run, whatever its family."""
