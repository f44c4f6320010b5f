"""A GridFTP server's files as a tree.

What the protocol cannot do at once: a rename replaces whatever file is there, so who may not replace asks
before, and a file that somebody else makes between question and rename is replaced. Links are followed by
the server; where one leads is asked before, for the folders of a path at most every half minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from workers.storage.trees.base import (
    ALGORITHMS,
    Entry,
    Keeping,
    Part,
    Receiving,
    StorageFailed,
    Traits,
    TransferOptions,
    Tree,
    Trouble,
    clean,
    shown,
)
from workers.storage.trees.filling import Filling, discard_parts, refuse_long
from workers.storage.trees.gridftp import facts
from workers.storage.trees.gridftp.asking import Asking
from workers.storage.trees.gridftp.writing import Sending
from workers.storage.trees.local.reading import opened
from workers.storage.trees.local.tree import LocalTree
from workers.storage.trees.local.writing import LocalFilling

#: Bytes a second that a server reads at least while it computes a checksum and says nothing.
_READS: Final = 20e6
#: A smaller local file is sent sooner by whoever has read it for its checksum anyway.
_BY_DESCRIPTOR: Final = 1 << 20


class GridFtpTree(Asking):
    """``reach.options``: ``{"scheme": "ftp"}`` (anonymous) or ``"gsiftp"`` (the default with a proxy)."""

    traits = Traits(appends=True, times=True, modes=True, checksums=ALGORITHMS)

    # --- looking ------------------------------------------------------------------------------------------

    def stat(self, path: bytes) -> Entry:
        return self.look(self.checked(path))

    def scan(self, path: bytes) -> Iterator[Entry]:
        path = self.checked(path)
        if not self.look(path).is_folder:  # of a file a server lists the file itself
            raise StorageFailed(f"{shown(path)} is a file, no folder", Trouble.NOT_FOLDER)
        return self._scan(path)

    def _scan(self, path: bytes) -> Iterator[Entry]:
        with self.content({"do": "list", "url": self.url(path)}, path) as content:
            for line in facts.lines(content):
                entry = facts.entry(line, follow=False)
                if entry is not None:
                    yield entry

    @contextmanager
    def read(self, path: bytes, *, offset: int = 0, version: str = "") -> Iterator[Iterator[bytes]]:
        path = self.checked(path)
        now = self.look(path)
        if now.is_folder:
            raise StorageFailed(f"{shown(path)} is a folder, no file", Trouble.IS_FOLDER)
        self._same(now, version, path)
        order = {"do": "get", "url": self.url(path), "offset": offset, "streams": 1}
        with self.content(order, path) as content:
            yield self._until_changed(content, version, path)

    def _until_changed(self, content: Iterator[bytes], version: str, path: bytes) -> Iterator[bytes]:
        yield from content
        if version:
            self._same(self.look(path), version, path)

    def _same(self, now: Entry, version: str, path: bytes) -> None:
        if version and now.version != version:
            raise StorageFailed(
                f"{shown(path)}: has changed since it was looked at: it is another file than was asked for",
                Trouble.CHANGED,
            )

    def checksum(self, path: bytes, algorithm: str) -> str:
        path = self.checked(path)
        if algorithm not in ALGORITHMS:
            return ""
        order = {"do": "checksum", "url": self.url(path), "algorithm": algorithm.upper()}
        with self.sessions.one() as session:
            session.order(order, path)
            answer = session.answer(longer=lambda: self.there(path).size / _READS)
            if answer["ok"]:
                found = str(answer["checksum"]).strip().lower()
                return found.rjust(8, "0") if algorithm == "adler32" else found
        failure = self.refused(answer, path)
        if failure.trouble is Trouble.OTHER and answer["code"] in (500, 501, 502, 504):
            return ""  # it does not know the command or the algorithm
        raise failure

    # --- writing ------------------------------------------------------------------------------------------

    def receive(self, path: bytes, part: Part, size: int) -> Receiving:
        return Filling(self, self.below(path), part, size)

    def discard(self, path: bytes, part: Part) -> None:
        try:
            discard_parts(self, self.below(path), part)
        except StorageFailed as failure:
            if failure.trouble is not Trouble.MISSING:  # its folder is gone, and so are they
                raise

    def open_part(self, part: bytes, offset: int) -> Sending:
        order = {"do": "put", "url": self.url(part), "offset": offset, "streams": 1}
        return Sending(self.sessions, order, part, lambda answer: self.refused(answer, part))

    def size_of(self, part: bytes) -> int | None:
        try:
            return self.look(part).size
        except StorageFailed as failure:
            if failure.trouble is Trouble.MISSING:
                return None
            raise

    def move(self, part: bytes, target: bytes, *, overwrite: bool) -> None:
        """See the module: who may not overwrite asks before."""
        try:
            there: Entry | None = self.there(target)
        except StorageFailed as failure:
            if failure.trouble is not Trouble.MISSING:
                raise
            there = None
        if there is not None and (there.is_folder or not overwrite):
            raise StorageFailed(f"{shown(target)} exists already", Trouble.EXISTS)
        try:
            self.ask("rename", part, to=self.url(target))
        except StorageFailed as failure:
            if there is not None and failure.trouble is Trouble.NOT_FOLDER:
                raise StorageFailed(f"{shown(target)} exists already, a file", Trouble.EXISTS) from failure
            if failure.trouble is Trouble.OTHER:
                self.there(part)  # raises MISSING: some servers only say that it was wrong
            raise

    def unlink(self, part: bytes) -> None:
        self.ask("unlink", part)

    def keep(self, part: bytes, keeping: Keeping) -> None:
        """As far as the server can; times in whole seconds."""
        if keeping.mode is not None:
            self.ask("chmod", part, optional=True, mode=keeping.mode & 0o777)
        if keeping.mtime_ns is not None:
            self.ask("utime", part, optional=True, at=keeping.mtime_ns // 10**9)

    # --- changing -----------------------------------------------------------------------------------------

    def remove(self, path: bytes) -> None:
        self.unlink(self.below(path))

    def remove_folder(self, path: bytes) -> None:
        self.ask("rmdir", self.below(path))
        self._inside.clear()

    def mkdir(self, path: bytes, mode: int | None = None) -> None:
        path = self.below(path, Trouble.EXISTS)
        refuse_long(path)
        self.ask("mkdir", path)
        if not path.isascii():
            self._named(path)
        if mode is not None:
            self.ask("chmod", path, optional=True, mode=mode & 0o777)

    def _named(self, path: bytes) -> None:
        """It has the name that it was given, or is removed again."""
        try:
            self.there(path)
        except StorageFailed as failure:
            if failure.trouble is Trouble.NAME:
                self.ask("rmdir", path)
            raise

    def rename(self, source: bytes, target: bytes, *, overwrite: bool = False) -> None:
        source, target = self.below(source), self.below(target)
        refuse_long(target)
        self.move(source, target, overwrite=overwrite)
        self._inside.clear()

    # --- without our hands --------------------------------------------------------------------------------

    def copy_here(
        self,
        source: Tree,
        path: bytes,
        receiving: Receiving,
        moved: Callable[[int], None],
        options: TransferOptions,
    ) -> bool:
        """A local file by its descriptor; from another GridFTP server by that one, where both are reached as
        the same user under the same authorities. A rate cannot be kept that way."""
        if options.rate is not None or not isinstance(receiving, Filling):
            return False
        if isinstance(source, LocalTree):
            if receiving.size < _BY_DESCRIPTOR:
                return False
            with opened(source.root, clean(path)) as file:
                order = {"do": "put", "offset": 0, "whole": True}
                self._copy(order, receiving.part, path, moved, options, file)
        elif isinstance(source, GridFtpTree) and (source.scheme, source.trust) == (self.scheme, self.trust):
            order = {"do": "third", "to": self.url(receiving.part)}
            source._copy(order, source.checked(path), path, moved, options)
        else:
            return False
        receiving.filled()
        return True

    def copy_there(
        self,
        path: bytes,
        target: Tree,
        receiving: Receiving,
        moved: Callable[[int], None],
        options: TransferOptions,
    ) -> bool:
        """Into a local file by its descriptor."""
        if options.rate is not None or not isinstance(receiving, LocalFilling):
            return False
        order = {"do": "get", "offset": 0}
        self._copy(order, self.checked(path), path, moved, options, receiving.descriptor)
        receiving.filled()
        return True

    def _copy(
        self,
        order: dict[str, Any],
        at: bytes,
        path: bytes,
        moved: Callable[[int], None],
        options: TransferOptions,
        file: int | None = None,
    ) -> None:
        """Have a speaker do it with what is ``at``; ``path`` is the source's, for people."""
        if order["do"] != "put":
            self.look(at)  # a link that leads out
        order = {**order, "url": self.url(at), "streams": options.streams}
        with self.sessions.one() as session:
            session.order(order, path, file)
            answer = session.answer(moved, deadline=time.monotonic() + options.timeout_s)
            if not answer["ok"]:
                raise self.refused(answer, path)
