"""/api/v1: the machines on which workers run."""
