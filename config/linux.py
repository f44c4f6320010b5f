"""What only Linux can do, said in words on other machines. Standard library only."""

from __future__ import annotations

import sys

_HOW = (
    "use `docker compose up` (README, Deploy) or a virtual machine with Linux. What starts here too are API, "
    "Flower and management commands (python -m config.start), with DATABASE_URL and REDIS_URL set"
)


def refusal(what: str) -> str:
    """Why `what` does not run on this machine and what does; empty on Linux."""
    here = sys.platform
    return "" if here == "linux" else f"{what} needs Linux, and this is {here}: {_HOW}"
