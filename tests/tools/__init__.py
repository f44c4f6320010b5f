"""How the whole suite is run and judged: `make test`."""
