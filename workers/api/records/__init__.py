"""/api/v1: limits, usage and the audit log."""
