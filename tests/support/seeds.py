"""Chance in tests: other numbers every day, and the same ones again when somebody wants to see a day again.

``make test`` names the day's seed and gives it to every process as GANTRY_TEST_SEED (docs/testing.md).
"""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime


def seed() -> int:
    """The day, unless GANTRY_TEST_SEED says otherwise."""
    return int(os.environ.get("GANTRY_TEST_SEED") or datetime.now(UTC).strftime("%Y%m%d"))


def dice(name: object) -> random.Random:
    """The day's dice of that name; another name, other numbers."""
    return random.Random(f"{seed()} {name}")
