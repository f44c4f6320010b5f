"""Writing a file where a rename makes it visible: what LOCAL, SFTP, WebDAV, GridFTP and XRootD share.

A tree gives a ``Shelf`` of few primitives, ``Filling`` is its ``Receiving``. What is written lies beside the
target under the part's name of its attempt (``parts``). An attempt that follows another first renames the
other's part to its own name: from then on the other one's rename finds nothing, so it can make nothing
visible any more, however long it still writes.
"""

from __future__ import annotations

from typing import Final, Protocol

from workers.storage.trees.base import Entry, Keeping, Part, StorageFailed, Traits, Trouble, shown
from workers.storage.trees.parts import NAME_MAX, part_path

#: Most bytes that a writer is given at once.
LARGEST: Final = 1 << 20
_NOTHING: Final = Keeping()


class Writer(Protocol):
    """An open part. It may open only when the first byte comes, or at ``finish``."""

    def write(self, piece: bytes) -> None:
        """The next bytes, at most 1 MiB. Raises StorageFailed."""
        ...

    def finish(self) -> None:
        """All bytes are at the storage, and stay there if its machine fails now, where it can promise that.
        A file that got no bytes is made here at the latest. Called once. Raises StorageFailed."""
        ...

    def close(self) -> None:
        """Free what it holds, quietly; also after ``finish``, and in the middle: the part stays."""
        ...


class Shelf(Protocol):
    """What a tree has to give. Every method raises StorageFailed; paths are clean (``base.clean``)."""

    @property
    def traits(self) -> Traits: ...

    def open_part(self, part: bytes, offset: int) -> Writer:
        """Offset 0: anew; what is there under this name is removed, not cut to 0, where a storage can tell
        these apart (whoever still has it open then writes into nothing). Else, asked only where the tree
        ``appends``: the one that is there, written from ``offset`` on, never "at its end". MISSING: its
        folder is not there."""
        ...

    def size_of(self, part: bytes) -> int | None:
        """Bytes that the storage holds; None: no such part."""
        ...

    def move(self, part: bytes, target: bytes, *, overwrite: bool) -> None:
        """Rename a file, in one step. MISSING: there is no ``part``. EXISTS: ``target`` is a folder, or is
        there and ``overwrite`` is not given."""
        ...

    def unlink(self, part: bytes) -> None:
        """Remove a file; MISSING."""
        ...

    def keep(self, part: bytes, keeping: Keeping) -> None:
        """Set what is not None, as far as the storage can; it is asked only where something is not."""
        ...

    def stat(self, path: bytes) -> Entry: ...

    def checksum(self, path: bytes, algorithm: str) -> str: ...


class Filling:
    """A ``base.Receiving``. ``part``: the path of what is being written, for a tree's ``copy_here``."""

    def __init__(self, shelf: Shelf, path: bytes, part: Part, size: int, *, name_max: int = NAME_MAX) -> None:
        """Begins: after it the part of ``part.before`` is ours or gone. ``size`` -1: unknown."""
        refuse_long(path, name_max)
        self.path = path
        self.size = size
        self.part = part_path(path, part.tag, part.attempt)
        self._shelf = shelf
        self._filled = False
        self.held = self._take_over(part)
        self._sent = self.held
        self._writer = shelf.open_part(self.part, self.held)

    def send(self, piece: bytes) -> None:
        if len(piece) <= LARGEST:
            self._writer.write(piece)
        else:
            for at in range(0, len(piece), LARGEST):
                self._writer.write(piece[at : at + LARGEST])
        self._sent += len(piece)

    def filled(self) -> None:
        """The content came into ``part`` by another way than ``send`` (``copy_here``): nothing is written by
        ``finish``, which asks for its size as ever."""
        self._writer.close()
        self._filled = True

    def finish(self) -> None:
        """Raises StorageFailed DAMAGED when it is not as long as was announced."""
        if not self._filled:
            if self.size >= 0 and self._sent != self.size:
                raise StorageFailed(
                    f"{shown(self.path)}: its source gave {self._sent} bytes instead of {self.size}: it has "
                    f"changed while it was read",
                    Trouble.DAMAGED,
                )
            self._writer.finish()
        held, due = self._shelf.size_of(self.part), self.size if self._filled else self._sent
        if held is None:
            raise self._gone()
        if due not in (-1, held):
            raise StorageFailed(
                f"{shown(self.path)}: the storage holds {held} bytes of {due}", Trouble.DAMAGED
            )

    def checksum(self, algorithm: str) -> str:
        return self._shelf.checksum(self.part, algorithm)

    def commit(self, *, overwrite: bool, keeping: Keeping = _NOTHING) -> Entry:
        """Raises StorageFailed CHANGED when the part is gone: a later attempt has it."""
        try:
            if keeping != _NOTHING:
                self._shelf.keep(self.part, keeping)
            self._shelf.move(self.part, self.path, overwrite=overwrite)
        except StorageFailed as failed:
            if failed.trouble is Trouble.MISSING:
                raise self._gone() from failed
            raise
        return self._shelf.stat(self.path)

    def discard(self) -> None:
        self._writer.close()
        unlink_quietly(self._shelf, self.part)

    def close(self) -> None:
        self._writer.close()

    def _take_over(self, part: Part) -> int:
        if part.before is None or part.before == part.attempt:
            return self._held_of_ours(part) if part.before is not None else 0
        try:
            self._shelf.move(part_path(self.path, part.tag, part.before), self.part, overwrite=True)
        except StorageFailed as failed:
            if failed.trouble is Trouble.MISSING:
                return 0
            raise
        return self._held_of_ours(part)

    def _held_of_ours(self, part: Part) -> int:
        """What of the part under our name can be gone on with; ``open_part`` at 0 throws the rest away."""
        if not (part.resume and self._shelf.traits.appends):
            return 0
        held = self._shelf.size_of(self.part) or 0
        return held if self.size < 0 or held <= self.size else 0

    def _gone(self) -> StorageFailed:
        return StorageFailed(
            f"{shown(self.path)}: what this attempt has written is gone: a later attempt has taken it over",
            Trouble.CHANGED,
        )


def discard_parts(shelf: Shelf, path: bytes, part: Part) -> None:
    """A tree's ``discard``: what the attempt and the one before have left beside ``path``."""
    for attempt in {part.attempt, part.attempt if part.before is None else part.before}:
        unlink_quietly(shelf, part_path(path, part.tag, attempt))


def unlink_quietly(shelf: Shelf, part: bytes) -> None:
    """Remove a part, whether it (or its folder) is there or not."""
    try:
        shelf.unlink(part)
    except StorageFailed as failed:
        if failed.trouble not in (Trouble.MISSING, Trouble.NOT_FOLDER):
            raise


def refuse_long(path: bytes, limit: int = NAME_MAX) -> None:
    """Raises StorageFailed NAME when the last component is longer than ``limit`` bytes, before anything is
    sent: its part's name is cut to fit and would only fail at the rename."""
    name = path.rpartition(b"/")[2]
    if len(name) > limit:
        raise StorageFailed(
            f"{shown(path)}: a name of {len(name)} bytes; the storage holds {limit} at most", Trouble.NAME
        )
