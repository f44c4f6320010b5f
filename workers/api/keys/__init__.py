"""/api/v1/keys: the public keys that verify what a tenant's receipts are signed with."""
