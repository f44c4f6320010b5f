"""What a container is called, and which one is whose.

Whoever shares a network of the engine with a container may ask its DNS for names, and an address for its
name. So a name says nothing and cannot be guessed: it is a keyed hash of run and attempt, the same on every
try and after the death of whoever made it. For people and for searches the labels say whose it is. Must not
import Django, the database or Celery.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from workers.runtimes.container.start import LABEL
from workers.runtimes.engine.client import Engine

_DIGITS: Final = 24


class Names:
    """The names of one node's containers. ``ours`` are the labels that all of them have; ``key`` is the
    installation's (``registration.container_key``)."""

    def __init__(self, installation: str, ours: Mapping[str, str], key: bytes) -> None:
        self._installation = installation
        self._ours = [f"{name}={value}" for name, value in ours.items()]
        self._key = key
        #: (run, attempt) -> the name of a container that was made under another rule: by an earlier version.
        self._others: dict[tuple[int, int], str] = {}

    def of(self, run_id: int, attempt: int) -> str:
        """The name that an attempt's container has or gets."""
        return self._others.get((run_id, attempt)) or self._made(run_id, attempt)

    def _made(self, run_id: int, attempt: int) -> str:
        what = f"{self._installation}-{run_id}-{attempt}".encode()
        return f"gantry-{hmac.new(self._key, what, hashlib.sha256).hexdigest()[:_DIGITS]}"

    def listed(self, engine: Engine, run_id: int | None = None) -> set[tuple[int, int]]:
        """(run, attempt) of every container of ours (of that run), by its labels; how they are called is
        remembered from then on. Raises EngineAway, EngineRefused."""
        wanted = self._ours + ([] if run_id is None else [f"{LABEL}run={run_id}"])
        there = engine.call(lambda docker: docker.containers(all=True, filters={"label": wanted}))
        found = set()
        for item in there:
            labels = item.get("Labels") or {}
            run, attempt = labels.get(f"{LABEL}run", ""), labels.get(f"{LABEL}attempt", "")
            if run.isdigit() and attempt.isdigit():
                key = (int(run), int(attempt))
                found.add(key)
                # A container has names of links, too: "/other/alias".
                own = [name[1:] for name in item.get("Names") or () if name.count("/") == 1]
                if own and own[0] != self._made(*key):
                    self._others[key] = own[0]
        return found

    def forget(self, run_id: int, attempt: int) -> None:
        """Its container is gone."""
        self._others.pop((run_id, attempt), None)
