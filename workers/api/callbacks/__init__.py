"""/api/v1: what is owed to clients, and what became of it."""
