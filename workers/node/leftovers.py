"""What ended attempts have left on this node and it could not remove: told, and tried more and more seldom.

One that cannot be removed stops nothing: neither the sweep of the others nor the thread that ended its run.
Must not import the agent or the database.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

import structlog

log = structlog.get_logger(__name__)

#: Seconds until it is tried again: twice as long after each try, up to the second figure.
_AGAIN_S: Final = (60.0, 3600.0)
#: Of a sentence that stands in the node's row.
_WORDS_MOST: Final = 500

#: Kind of run, run, attempt.
Key = tuple[str, int, int]


@dataclass(frozen=True)
class _Leftover:
    why: str
    tries: int
    due_at: float


class Leftovers:
    """Those of one worker; used by all of its threads. A new worker tries them all at once again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[Key, _Leftover] = {}

    @contextlib.contextmanager
    def removing(self, key: Key) -> Iterator[None]:
        """What is done within removes what is left of an attempt; whatever it raises is noted and told."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # it stops nothing else
            again_in_s = self._note(key, error)
            # A text of ours, or the system's, says everything; whatever else it is, is a fault of ours.
            tell = log.warning if isinstance(error, OSError) else log.exception
            tell(
                "leftover.not_removed",
                kind=key[0],
                run=key[1],
                attempt=key[2],
                why=_words(error),
                again_in_s=again_in_s,
            )
        else:
            with self._lock:
                self._known.pop(key, None)

    def _note(self, key: Key, error: Exception) -> float:
        with self._lock:
            tries = self._known[key].tries + 1 if key in self._known else 1
            again_in_s = min(_AGAIN_S[0] * 2.0 ** min(tries - 1, 30), _AGAIN_S[1])
            self._known[key] = _Leftover(_words(error), tries, self._clock() + again_in_s)
        return again_in_s

    def due(self, key: Key) -> bool:
        """Is it time to try (again)? True for what has not been tried."""
        with self._lock:
            known = self._known.get(key)
            return known is None or self._clock() >= known.due_at

    def only(self, kind: str, there: Collection[tuple[int, int]]) -> None:
        """Of this kind no more than these (run, attempt) are left: somebody else has removed the others."""
        with self._lock:
            for key in [key for key in self._known if key[0] == kind and key[1:] not in there]:
                del self._known[key]

    def words(self) -> str:
        """For operators: the first one, and how many there are; empty when nothing is left."""
        with self._lock:
            if not self._known:
                return ""
            (kind, run_id, attempt), first = min(self._known.items())
            others = len(self._known) - 1
        more = f"; {others} more, see leftover.not_removed in its log" if others else ""
        return f"left of run {run_id} ({kind}, attempt {attempt}): {first.why}"[:_WORDS_MOST] + more


def _words(error: Exception) -> str:
    """As a log and a database take it, whatever bytes a path in it has."""
    text = str(error) or repr(error)
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
