"""Places for long answers: how many there are, and how many of them one tenant, and one signed URL, may have.

Long are logs, lists and manifests that do not fit into one piece, followers, clients that wait for
something, and bodies of megabytes: whatever lasts as long as a client likes. Each process of the API counts
its own.
"""

from __future__ import annotations

import threading
from collections import Counter

from django.conf import settings

from workers.vocabulary.errors import Unavailable

#: Seconds after which a client may ask again.
RETRY_S = 5


class Places:
    """For many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0
        self._of: Counter[tuple[str, str]] = Counter()

    @property
    def taken(self) -> int:
        return self._taken

    def take(self, tenant: str, url: str) -> Place:
        """A place for this tenant ("": strangers) and signed URL ("": none). Unavailable when there is
        none."""
        whose = [("tenant", tenant), *([("url", url)] if url else [])]
        limits = {"tenant": settings.GANTRY_LONG_ANSWERS_TENANT, "url": settings.GANTRY_LONG_ANSWERS_URL}
        with self._lock:
            if self._taken >= settings.GANTRY_LONG_ANSWERS:
                raise Unavailable(
                    _full(self._taken, "of all tenants", "GANTRY_LONG_ANSWERS"), retry_after=RETRY_S
                )
            for kind, name in whose:
                if self._of[kind, name] >= limits[kind]:
                    who, setting = (
                        ("of your tenant", "TENANT") if kind == "tenant" else ("by one signed URL", "URL")
                    )
                    text = _full(limits[kind], who, f"GANTRY_LONG_ANSWERS_{setting}")
                    raise Unavailable(text, retry_after=RETRY_S)
            self._taken += 1
            self._of.update(whose)
        return Place(self, whose)

    def give_back(self, whose: list[tuple[str, str]]) -> None:
        """``Place.give_back`` calls it, once."""
        with self._lock:
            self._taken -= 1
            self._of.subtract(whose)
            for key in whose:
                if not self._of[key]:
                    del self._of[key]


class Place:
    """One that was taken."""

    def __init__(self, places: Places, whose: list[tuple[str, str]]) -> None:
        self._places = places
        self._whose: list[tuple[str, str]] | None = whose

    def give_back(self) -> None:
        """Once, however often it is called; by one thread at a time."""
        whose, self._whose = self._whose, None
        if whose is not None:
            self._places.give_back(whose)


def _full(count: int, who: str, setting: str) -> str:
    return (
        f"{count} long answers at once (logs, long lists, followers, clients that wait) {who} are the most "
        f"that this process gives ({setting}): try again later, or ask for less (tail, Range, limit, no wait)"
    )
