"""What is done again and again beside a block of a test, above all: looking at the memory of processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import psutil
from django.db import connection

from tests.support.waiting import limit

MIB = 1 << 20


class Again:
    """``with Again(look, 0.05):`` a thread that calls ``look`` every so many seconds while the block runs.

    What the thread raises ends it and fails the block. ``count``: how often it has been called.
    """

    def __init__(self, step: Callable[[], object], every_s: float) -> None:
        self.count = 0
        self._step = step
        self._every_s = every_s
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(limit(90))
        if kind is None:
            assert not self._thread.is_alive(), "what is done again and again does not end"
            if self._error is not None:
                raise self._error

    def _run(self) -> None:
        try:
            due = time.monotonic()
            while not self._stop.wait(max(0.0, due - time.monotonic())):  # pace: how often, as it was asked
                due = max(due + self._every_s, time.monotonic())
                self._step()
                self.count += 1
        except BaseException as error:
            self._error = error
        finally:
            connection.close()


def resident_mb(pid: int) -> float:
    """What a process has in memory, in MiB, shared pages included."""
    return float(psutil.Process(pid).memory_info().rss) / MIB


class Memory:
    """Of processes by name, in MiB: at the first look and at most.

    ``proportional``: shared pages count by how many share them (PSS), so that forks can be added up.
    """

    def __init__(self, *, proportional: bool = False) -> None:
        self.first: dict[str, float] = {}
        self.most: dict[str, float] = {}
        self._proportional = proportional

    def look(self, pids: Iterable[int], name: str = "") -> None:
        """Look at each of them, by ``name`` if they count as one, else by number. Left out: who has ended."""
        for pid in pids:
            try:
                if self._proportional:
                    used = float(psutil.Process(pid).memory_full_info().pss) / MIB
                else:
                    used = resident_mb(pid)
            except psutil.NoSuchProcess:
                continue
            key = name or str(pid)
            self.first.setdefault(key, used)
            self.most[key] = max(self.most.get(key, 0.0), used)

    def grown(self, *but: str) -> float:
        """By how much the one that grew most has grown; without those named ``but``."""
        return max(most - self.first[key] for key, most in self.most.items() if key not in but)
