"""The books of jobs."""
