"""Fetching a run's inputs into its working folder."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from django.conf import settings

from workers.runtimes.base import Places
from workers.runtimes.staging import folder
from workers.runtimes.staging.journal import Journal
from workers.runtimes.staging.plan import Plan, Storages, shown
from workers.runtimes.staging.progress import Progress
from workers.runtimes.staging.tries import patiently
from workers.storage.base import PIECE, Stat, Storage, StorageFailed, Trouble
from workers.vocabulary.crashpoints import step
from workers.vocabulary.staging import Input

T = TypeVar("T")


class NotThereYet(Exception):
    """An input is missing that the run is willing to wait for; the text says which and how long."""


def fetch_inputs(plan: Plan, places: Places, tick: Callable[[], None], tell: Callable[[str], None]) -> None:
    """Fetch what is not there yet. ``tick`` is called meanwhile; what it raises goes through.

    First all are looked at, so that nothing is fetched while another is awaited. Raises StorageFailed (its
    message names the input), NotThereYet; OSError when the folder cannot be written.
    """
    journal = Journal(places.control)
    with ExitStack() as stack:
        storages = Storages(plan, tick, stack)
        fetches = []
        for number, item in enumerate(plan.inputs, 1):
            size = journal.fetched(item.path)
            if size is not None and folder.size_of(places.work, item.path) == size:
                continue
            progress = Progress(tell, "fetching", number, len(plan.inputs), item.size)
            fetches.append(_Fetch(item, *storages.of(item), places, journal, progress, tick))
            fetches[-1].look()
        for fetch in fetches:
            step("staging.before_input")
            fetch.fetch()
            step("staging.after_input")


@dataclass
class _Fetch:
    """One input on its way: ``done`` bytes are in the file; ``found`` is what its storage told of it."""

    item: Input
    storage: Storage
    at: str
    places: Places
    journal: Journal
    progress: Progress
    tick: Callable[[], None]
    done: int = 0
    found: Stat | None = None

    def look(self) -> None:
        """What is there. NotThereYet while it is missing and may be waited for.

        Servers of http(s) are not asked before: some answer once, and their answer tells all there is.
        """
        if self.item.store is None:
            return
        try:
            self.found = found = self._outlasting(lambda: self.storage.stat(self.at))
        except StorageFailed as failure:
            if failure.trouble is Trouble.MISSING and time.time() < self.item.wait_until:
                until = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.item.wait_until))
                raise NotThereYet(
                    f"it waits for its input {self.item.url}, which is not there yet (until {until} UTC)"
                ) from failure
            raise
        if self.item.size not in (None, found.size):
            raise self._wrong(f"it has {found.size} bytes, not the {self.item.size} that were expected")
        self.progress.total = found.size

    def fetch(self) -> None:
        """Into its place, whole and as the storage has it."""
        self.progress.say()
        try:
            with folder.to_be_placed(self.places.work, self.item.path) as file:
                self._outlasting(lambda: self._continued(file))
                self.journal.note_fetched(self.item.path, self.done)  # it counts once the file has its name
        except folder.InTheWay as error:
            raise self._wrong(str(error)) from error

    def _continued(self, file: int) -> None:
        """From where the last try ended, if it is known to be the same content; the storage checks what it
        gives from its first byte on."""
        if self.found is None:
            self._anew(file)
        began = self.done
        with self.storage.read(
            self.at, offset=began, version=self.found.version if self.found else ""
        ) as pieces:
            for piece in pieces:
                _write(file, piece)
                self.done += len(piece)
                self.progress.add(len(piece))
                self.tick()
                step("staging.in_input")
        size = self.item.size if self.found is None else self.found.size
        if size not in (None, self.done):
            raise self._wrong(f"{self.done} bytes came instead of {size}")
        wanted = self.item.checksum or (self.found.checksum if self.found and began else "")
        if wanted and (came := _checksum(file, wanted, self.tick)) != wanted:
            self._anew(file)
            raise self._wrong(f"what came has the checksum {came}, expected is {wanted}", Trouble.DAMAGED)

    def _outlasting(self, once: Callable[[], T]) -> T:
        return patiently(
            once,
            # An address may simply be wrong; of a storage it is known that it was there.
            patience_s=0 if self.item.store is None else settings.GANTRY_STAGING_PATIENCE_S,
            moved=lambda: self.done,
            tick=self.tick,
            tell=self.progress.say,
        )

    def _anew(self, file: int) -> None:
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        self.done = self.progress.moved = 0

    def _wrong(self, what: str, trouble: Trouble = Trouble.OTHER) -> StorageFailed:
        return StorageFailed(f"{shown(self.item)}: {what}", trouble)


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
