"""Fetching a run's inputs into its working folder."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from django.conf import settings

from workers.runtimes.base import Places
from workers.runtimes.staging import folder
from workers.runtimes.staging.journal import Journal
from workers.runtimes.staging.plan import Plan, Storages
from workers.runtimes.staging.progress import Progress
from workers.runtimes.staging.tries import patiently
from workers.storage.base import PIECE, Stat, Storage, StorageFailed, Trouble
from workers.vocabulary.crashpoints import step
from workers.vocabulary.staging import Input


class NotThereYet(Exception):
    """An input is missing that the run is willing to wait for; the text says which and how long."""


def fetch_inputs(plan: Plan, places: Places, tick: Callable[[], None], tell: Callable[[str], None]) -> None:
    """Fetch what is not there yet. ``tick`` is called meanwhile; what it raises goes through.

    First all are looked at, so that nothing is fetched while another is awaited. Raises StorageFailed (its
    message names the input), NotThereYet; OSError when the folder cannot be written.
    """
    if not plan.inputs:
        return
    journal = Journal(places.control)
    with ExitStack() as stack:
        storages = Storages(plan, tick, stack)
        found = []
        for number, item in enumerate(plan.inputs, 1):
            size = journal.fetched(item.path)
            if size is not None and folder.size_of(places.work, item.path) == size:
                continue
            progress = Progress(tell, "fetching", number, len(plan.inputs), item.size)
            fetch = _Fetch(item, *storages.of(item), places, progress, tick)
            found.append((fetch, fetch.look()))
        for fetch, what in found:
            step("staging.before_input")
            fetch.fetch(what)
            step("staging.after_input")
            journal.note_fetched(fetch.item.path, what.size)


@dataclass
class _Fetch:
    """One input on its way. ``done`` bytes of it are in the file."""

    item: Input
    storage: Storage
    at: str
    places: Places
    progress: Progress
    tick: Callable[[], None]
    done: int = 0

    def look(self) -> Stat:
        """What is there. NotThereYet while it is missing and may be waited for."""
        try:
            found = self._outlasting(lambda: self.storage.stat(self.at))
        except StorageFailed as failure:
            if failure.trouble is Trouble.MISSING and time.time() < self.item.wait_until:
                until = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.item.wait_until))
                raise NotThereYet(
                    f"it waits for its input {self.item.url}, which is not there yet (until {until} UTC)"
                ) from failure
            raise
        if self.item.size is not None and found.size != self.item.size:
            raise StorageFailed(
                f"{self.item.url} has {found.size} bytes, not the {self.item.size} that were expected",
                Trouble.OTHER,
            )
        self.progress.total = found.size
        return found

    def fetch(self, found: Stat) -> None:
        """Into its place, whole and as the storage has it."""
        self.progress.say()
        with folder.to_be_placed(self.places.work, self.item.path) as file:
            self._outlasting(partial(self._continued, file, found))
            if self.done != found.size:
                raise StorageFailed(
                    f"{self.item.url}: {self.done} bytes came instead of {found.size}", Trouble.OTHER
                )

    def _continued(self, file: int, found: Stat) -> None:
        """From where the last try ended; the storage checks what it gives from its first byte on."""
        began = self.done
        with self.storage.read(self.at, offset=began, version=found.version) as pieces:
            for piece in pieces:
                _write(file, piece)
                self.done += len(piece)
                self.progress.add(len(piece))
                self.tick()
                step("staging.in_input")
        wanted = self.item.checksum or (found.checksum if began else "")
        if wanted and (sum_ := _checksum(file, wanted, self.tick)) != wanted:
            self._anew(file)
            raise StorageFailed(
                f"{self.item.url}: what came has the checksum {sum_}, expected is {wanted}", Trouble.DAMAGED
            )

    def _outlasting(self, once: Callable[[], Stat | None]) -> Stat:
        return patiently(  # type: ignore[return-value]
            once,
            patience_s=settings.GANTRY_STAGING_PATIENCE_S,
            moved=lambda: self.done,
            tick=self.tick,
            tell=self.progress.say,
        )

    def _anew(self, file: int) -> None:
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        self.done = self.progress.moved = 0


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _checksum(file: int, like: str, tick: Callable[[], None]) -> str:
    """The checksum of a file's content, by the method that ``like`` names ("md5:...")."""
    method = like.partition(":")[0]
    state = hashlib.new(method, usedforsecurity=False)
    at = 0
    while data := os.pread(file, PIECE, at):
        state.update(data)
        at += len(data)
        tick()
    return f"{method}:{state.hexdigest()}"
