"""Outlasting a storage's trouble: once more, a little later, as long as there is hope.

| trouble                                  | tried again                                             |
| ---------------------------------------- | ------------------------------------------------------- |
| no answer, cut off, overloaded           | for GANTRY_STAGING_PATIENCE_S without any progress      |
| damaged on the way, changed meanwhile    | twice                                                   |
| missing, denied, full, anything else     | not at all: nothing changes by itself                   |
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

import structlog
from django.conf import settings

from workers.storage.base import StorageFailed, Trouble
from workers.vocabulary.errors import EngineError

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Seconds until the second try; doubled with each further one, up to the last.
_FIRST_S: Final = 1.0
_LAST_S: Final = 30.0
_DAMAGES: Final = 3
#: How often a pause looks whether it is still wanted.
_SLICE_S: Final = 0.2


class Interrupted(Exception):
    """Nobody wants it any more, or not from us."""


class Overdue(EngineError):
    """All of it together took too long: a storage that drips would hold the run's place for ever."""

    code = "staging_overdue"


def limited(tick: Callable[[], None], doing: str) -> Callable[[], None]:
    """``tick`` that also raises Overdue after GANTRY_STAGING_TIMEOUT_S; ``doing`` begins its message."""
    most = settings.GANTRY_STAGING_TIMEOUT_S
    until = time.monotonic() + most

    def both() -> None:
        tick()
        if time.monotonic() > until:
            raise Overdue(f"{doing} took more than {most} s (an operator can raise GANTRY_STAGING_TIMEOUT_S)")

    return both


def patiently(
    once: Callable[[], T],
    *,
    patience_s: float,
    moved: Callable[[], int],
    tick: Callable[[], None],
    tell: Callable[[str], None],
) -> T:
    """Call ``once`` until it succeeds. ``moved`` is how many bytes have been moved for good so far.

    Raises what ``once`` raised last, and whatever ``tick`` raises.
    """
    wait, damages, so_far = _FIRST_S, 0, moved()
    since: float | None = time.monotonic()
    while True:
        try:
            return once()
        except StorageFailed as failure:
            if moved() > so_far:
                so_far, since, wait = moved(), None, _FIRST_S
            now = time.monotonic()
            damages += failure.trouble is not Trouble.AWAY
            if since is None:
                since = now
            elif now - since >= patience_s:
                raise
            if not failure.temporary or damages >= _DAMAGES:
                raise
            log.info("staging.again", message=failure.message, in_s=wait)
            tell(f"{failure.message}: tried again in {wait:g} s")
        until = time.monotonic() + wait
        while (left := until - time.monotonic()) > 0:
            tick()
            time.sleep(min(_SLICE_S, left))
        wait = min(wait * 2, _LAST_S)
