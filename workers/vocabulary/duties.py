"""What a family looks after by itself every few seconds; ``workers.upkeep.duties`` calls it.

And what every such round over many objects does: one of them that fails stops none of the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog
from django.db import InterfaceError, OperationalError

log = structlog.get_logger(__name__)

#: Seconds until what has failed is tried again: twice as long after each time, up to the second figure.
_AGAIN_S: Final = (1.0, 300.0)
#: What has failed -> how often, and when it is tried again. Forgotten when there is too much of it.
_failed: dict[tuple[str, Hashable], tuple[int, float]] = {}
_FAILED_MOST: Final = 10_000

Item = TypeVar("Item", bound=Hashable)
Done = TypeVar("Done")


@dataclass(frozen=True)
class Duty:
    """``look`` does one bounded round and returns {what: how many}.

    Called every ``every_s`` seconds, and at once when somebody rings (doorbell.ring_duties) if it ``hears``.
    """

    every_s: float
    look: Callable[[], Mapping[str, int]]
    hears: bool = False


def one_by_one(what: str, items: Iterable[Item], do: Callable[[Item], Done]) -> dict[Item, Done]:
    """``do`` each, in transactions of its own; returns {item: result} of those that went well.

    One that fails is told (``round.failed`` with ``what`` and the item), stops none of the others and is
    tried more and more seldom. What concerns all of them is raised: OperationalError, InterfaceError.
    """
    done: dict[Item, Done] = {}
    for item in items:
        key = (what, item)
        tries, due_at = _failed.get(key, (0, 0.0))
        if tries and time.monotonic() < due_at:
            continue
        try:
            done[item] = do(item)
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            again_in_s = min(_AGAIN_S[0] * 2.0 ** min(tries, 30), _AGAIN_S[1])
            if len(_failed) >= _FAILED_MOST:
                _failed.clear()
            _failed[key] = (tries + 1, time.monotonic() + again_in_s)
            log.exception("round.failed", what=what, item=str(item), again_in_s=again_in_s)
        else:
            _failed.pop(key, None)
    return done
