"""The one way in which tests wait: a condition is asked for again and again, with a generous limit.

A limit is for a machine that is overloaded, not for what is waited for: nobody measures with it. Where CI is
set it is three times as long; GANTRY_TEST_PATIENCE is another factor. A test never sleeps to give something
time: it waits until that has happened, or for a witness that comes after what must not happen.

Imports nothing but the standard library.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable
from time import monotonic, sleep
from typing import Literal, TypeVar

T = TypeVar("T")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 600
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 20


def limit(seconds: float) -> float:
    """How long to wait at most for what takes ``seconds`` on a machine that is merely busy.

    For the waits of others: of a process, a thread, a client for its server.
    """
    given = os.environ.get("GANTRY_TEST_PATIENCE")
    if given:
        return seconds * float(given)
    return seconds * 3 if os.environ.get("CI") else seconds


def wait_until(
    what: Callable[[], T | Literal[False] | None],
    timeout_s: float = 60.0,
    every_s: float = 0.05,
    why: str = "",
    see: Callable[[], object] | None = None,
) -> T:
    """Wait until ``what`` returns something true and return it; what it raises is let through.

    Fails otherwise with ``why`` and the last state: what ``what`` returned, or what ``see`` says of the thing
    that is waited for. The last look begins after the limit, however long the one before took.
    """
    most = limit(timeout_s)
    began = monotonic()
    while True:
        late = monotonic() - began > most
        found = what()
        if found:
            return found
        if late:
            said = f"{why or what}: not within {most:g} s"
            raise AssertionError(f"{said}; last seen: {_state(found, see)}; load {_load()}")
        sleep(every_s)


def holds_for(
    what: Callable[[], object],
    seconds: float,
    why: str,
    every_s: float = 0.05,
    see: Callable[[], object] | None = None,
) -> None:
    """What must stay so: fails at the first look, of many in ``seconds``, at which ``what`` is not true.

    A busy machine looks less often, so it may overlook a violation and never makes one up. Better is to wait
    for something that comes after what must not happen.
    """
    began = monotonic()
    while True:
        gone = monotonic() - began
        found = what()
        if not found:
            said = f"{why}: not any more after {gone:.1f} s"
            raise AssertionError(f"{said}; last seen: {_state(found, see)}; load {_load()}")
        if gone > seconds:
            return
        sleep(every_s)


def _state(found: object, see: Callable[[], object] | None) -> str:
    if see is None:
        return _short.repr(found)
    try:
        seen = see()
    except Exception as error:  # the wait has failed: that is what must be told
        return f"{_short.repr(found)}, and nothing can be seen: {error!r}"
    return seen if isinstance(seen, str) else _short.repr(seen)


def _load() -> str:
    return " ".join(f"{value:.1f}" for value in os.getloadavg())
