"""/api/v1: tenants, users, members and tokens."""
