"""/api/v1: what a tenant shows private registries."""
