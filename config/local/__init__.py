"""Gantry on one bare machine: embedded Postgres and Redis, the supervisor of `make up`, the demo.

Starts the project's processes and must not import Django's settings or any app: it prepares the
environment that those read.
"""
