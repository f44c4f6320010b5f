"""What a family looks after by itself every few seconds; ``workers.upkeep.duties`` calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Duty:
    """``look`` does one bounded round and returns {what: how many}.

    Called every ``every_s`` seconds, and at once when somebody rings (doorbell.ring_duties) if it ``hears``.
    """

    every_s: float
    look: Callable[[], Mapping[str, int]]
    hears: bool = False
