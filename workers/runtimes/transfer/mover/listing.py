"""LIST: a tree, walked by several threads, told in the order that its job asks for.

Links are followed for files and never for folders, so there are no loops; for a REMOVE they are themselves.
"""

from __future__ import annotations

import errno
import stat as modes
import tempfile
import threading
import time
from typing import IO, TYPE_CHECKING, Any, Final

from workers.runtimes.transfer.mover import paths
from workers.runtimes.transfer.mover.element import Cancelled, Element, Refused
from workers.runtimes.transfer.mover.reporting import NAMES, Lines
from workers.runtimes.transfer.mover.spool import Told, Waiting
from workers.storage.trees.base import Entry, StorageFailed, Trouble, shown
from workers.storage.trees.parts import is_part
from workers.vocabulary.transfers.reach import Act, Protocol

if TYPE_CHECKING:
    from workers.runtimes.transfer.mover.batch import Batch

#: Lines of one folder that are held in memory.
_HELD: Final = 4 << 20
#: Odd things that the log names one by one.
_ODD: Final = 100
#: Where a link can be seen at all.
_LINKS: Final = (Protocol.LOCAL, Protocol.SFTP, Protocol.GRIDFTP)
_LOOK_S: Final = 0.2
#: Between two looks whether more threads would help, and from which share of a processor on they would not.
_LOOK_MORE_S: Final = 0.05
_BUSY: Final = 0.6

Folder = tuple[bytes, bytes, int]  # as asked, in the tree, level (1 is the top)


class Listing:
    """The LIST elements of a batch."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._act = batch.orders.job_act

    def carry_out(self, element: Element) -> None:
        order, batch = element.order, self._batch
        asked = paths.trimmed(paths.asked(order.src, order.escaped))
        path = batch.located_source(order.src, order.escaped)
        if path == b"/" and self._act in (Act.REMOVE, Act.RENAME):
            raise Refused(
                f"the root of a site is not {'removed' if self._act == Act.REMOVE else 'renamed'}",
                errno.EBUSY,
            )
        top = self._top(path)
        if top.is_folder and self._act != Act.RENAME:
            walk = Walk(batch, element, self._act)
            walk.go(asked, path, _depth(batch.orders.options.get("depth")))
            element.say(f"{element.names} names in {walk.folders} folders below {shown(path)}")
            return
        element.names = 1
        with tempfile.SpooledTemporaryFile(_HELD, dir=batch.scratch) as held:
            lines = Lines(held, order.n, paths.parent(asked))
            lines.add(paths.last(asked) or top.name, top)
            lines.end()
            held.seek(0)
            batch.report.pour(iter(lambda: held.read(1 << 20), b""))
        element.say(f"{shown(path)} is {_kind(top)}")

    def _top(self, path: bytes) -> Entry:
        """What is asked about; for a REMOVE a link is itself, wherever it leads."""
        batch = self._batch
        if self._act in (Act.REMOVE, Act.RENAME) and batch.orders.source.protocol in _LINKS:
            folder, _, name = path.rpartition(b"/")
            try:
                top = batch.source.stat(path)
                if top.is_file:
                    return top
            except StorageFailed as failed:
                if failed.trouble not in (Trouble.MISSING, Trouble.DENIED):
                    raise
            for entry in batch.source.scan(folder or b"/"):
                if entry.name == name:
                    return entry
        return batch.source.stat(path)


class Walk:
    """One walk through a tree. Raises what the first of its threads met."""

    def __init__(self, batch: Batch, element: Element, act: str) -> None:
        self.folders = 0
        self._batch = batch
        self._element = element
        self._act = act
        self._waiting = Waiting(batch.scratch)
        #: Told in another order than walked: by the length of paths.
        self._told = Told(batch.scratch) if act in (Act.COPY, Act.REMOVE) else None
        self._changed = threading.Condition()
        self._busy = 0
        self._names = 0
        self._odd = 0
        self._error: BaseException | None = None

    def go(self, asked: bytes, path: bytes, depth: int) -> None:
        """``depth`` levels; 0: all."""
        self._depth = depth
        self._waiting.push((asked, path, 1))
        self._walk(max(1, self._batch.orders.streams))
        self._waiting.close()
        if self._error is not None:
            raise self._error
        if self._told is not None:
            self._batch.report.pour(self._told.in_order(longest_first=self._act == Act.REMOVE))
            self._told.close()
        self._element.names = self._names
        if self._odd > _ODD:
            self._element.say(f"and {self._odd - _ODD} more such")

    def _walk(self, most: int) -> None:
        """By one thread, and by more while they spend their time waiting for the storage.

        Where it answers at once more threads only wait for each other: 200,000 names of a local disk took
        1.0 s by one, 1.2 to 1.6 by two, 3.1 by sixteen.
        """
        threads = list[threading.Thread]()
        began, used = time.monotonic(), time.process_time()
        wanted = 1
        while True:
            while len(threads) < wanted:
                thread = threading.Thread(target=self._scan_all, name=f"walk-{len(threads)}", daemon=True)
                threads.append(thread)
                thread.start()
            threads[0].join(_LOOK_MORE_S)
            if not threads[0].is_alive():
                break
            now, cpu = time.monotonic(), time.process_time()
            with self._changed:
                waits = cpu - used < _BUSY * (now - began) and self._waiting
            if waits:
                wanted = min(most, 2 * len(threads))
            began, used = now, cpu
        for thread in threads:
            thread.join()

    def _scan_all(self) -> None:
        with tempfile.SpooledTemporaryFile(_HELD, dir=self._batch.scratch) as held:
            while (folder := self._next()) is not None:
                found: list[Folder] = []
                problem: Exception | None = None
                try:
                    found = self._scan(folder, held)
                except Exception as error:  # noqa: BLE001 (told by whoever waits for us)
                    problem = error
                with self._changed:
                    self._busy -= 1
                    for below in reversed(found):
                        self._waiting.push(below)
                    self._error = self._error or problem
                    self._changed.notify_all()

    def _next(self) -> Folder | None:
        with self._changed:
            while True:
                if self._error is None and self._batch.stopping.is_set():
                    self._error = Cancelled()
                if self._error is not None:
                    return None
                if (folder := self._waiting.pop()) is not None:
                    self._busy += 1
                    return folder
                if not self._busy:
                    return None
                self._changed.wait(_LOOK_S)

    def _scan(self, folder: Folder, held: IO[bytes]) -> list[Folder]:
        """One folder: its lines told, the folders in it returned."""
        asked, path, level = folder
        deeper = not self._depth or level < self._depth
        links = self._act != Act.REMOVE
        inside: list[Folder] = []
        held.seek(0)
        held.truncate()
        lines = Lines(held, self._element.order.n, asked)
        try:
            for entry in self._batch.source.scan(path):
                kind = modes.S_IFMT(entry.mode)
                if kind == modes.S_IFDIR:
                    if deeper:
                        inside.append(
                            (paths.below(asked, entry.name), paths.below(path, entry.name), level + 1)
                        )
                elif kind == modes.S_IFREG:
                    if entry.name.endswith(b".part") and self._act == Act.COPY and is_part(entry.name):
                        self._say(f"{shown(paths.below(path, entry.name))} is left out: a transfer writes it")
                        continue
                elif kind == modes.S_IFLNK and links:
                    entry = self._followed(paths.below(path, entry.name), entry)  # noqa: PLW2901
                elif links:
                    self._say(f"{shown(paths.below(path, entry.name))} is {_kind(entry)}: skipped")
                lines.add(entry.name, entry)
                if not lines.names % NAMES:
                    self._batch.check()
        except StorageFailed as failed:
            if level == 1 or failed.trouble not in (Trouble.MISSING, Trouble.NOT_FOLDER):
                raise
            self._say(f"{shown(path)} has gone while its tree was listed: skipped")
            return []
        lines.end()
        size = held.tell()
        held.seek(0)
        if self._told is not None:
            self._told.add(held, size, len(asked))
        else:
            self._batch.report.pour(iter(lambda: held.read(1 << 20), b""))
        with self._changed:
            self.folders, self._names = self.folders + 1, self._names + lines.names
        return inside

    def _followed(self, path: bytes, link: Entry) -> Entry:
        """A link to a file is told as the file; another one as itself, and nobody follows it."""
        try:
            found = self._batch.source.stat(path)
        except StorageFailed as failed:
            if failed.trouble is Trouble.AWAY:
                raise
            self._say(f"{shown(path)} is a link that leads to nothing here: skipped")
            return link
        if not found.is_file:
            self._say(f"{shown(path)} is a link to {_kind(found)}: not followed, skipped")
            return link
        return found._replace(name=link.name)

    def _say(self, line: str) -> None:
        with self._changed:
            self._odd += 1
            if self._odd <= _ODD:
                self._element.say(line)


def _kind(entry: Entry) -> str:
    names = {
        modes.S_IFREG: "a file", modes.S_IFDIR: "a folder", modes.S_IFLNK: "a link", modes.S_IFIFO: "a pipe",
        modes.S_IFSOCK: "a socket", modes.S_IFCHR: "a device", modes.S_IFBLK: "a device",
    }  # fmt: skip
    return names.get(modes.S_IFMT(entry.mode), "something special")


def _depth(option: Any) -> int:
    """Levels to list; 0 = all (absent or -1). 0 in the option means 1."""
    depth = -1 if option is None else int(option)
    return 0 if depth < 0 else max(1, depth)
