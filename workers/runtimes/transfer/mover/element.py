"""One element while it is worked on: what its log will say, how far it is, and how it ends."""

from __future__ import annotations

import errno
import time
from typing import Final

from workers.storage.trees.base import StorageFailed, Trouble
from workers.vocabulary.transfers.orders import Order

#: What a person's shell would call it.
CODES: Final = {
    Trouble.MISSING: errno.ENOENT,
    Trouble.DENIED: errno.EACCES,
    Trouble.REFUSED: errno.ECONNREFUSED,
    Trouble.AWAY: errno.ETIMEDOUT,
    Trouble.CHANGED: errno.ESTALE,
    Trouble.DAMAGED: errno.EBADMSG,
    Trouble.FULL: errno.ENOSPC,
    Trouble.EXISTS: errno.EEXIST,
    Trouble.NOT_EMPTY: errno.ENOTEMPTY,
    Trouble.NOT_FOLDER: errno.ENOTDIR,
    Trouble.IS_FOLDER: errno.EISDIR,
    Trouble.NAME: errno.EINVAL,
    Trouble.OTHER: errno.EIO,
}
#: Another try may help.
_AGAIN: Final = frozenset({Trouble.AWAY, Trouble.CHANGED, Trouble.DAMAGED, Trouble.FULL, Trouble.OTHER})


class Cancelled(Exception):
    """The mover was told to stop."""


class Refused(Exception):
    """We do not do it, whatever the storages say; no other try helps."""

    def __init__(self, message: str, code: int = errno.EINVAL) -> None:
        super().__init__(message)
        self.code = code


class Element:
    """Worked on by one thread; the reporter's thread looks at ``moved``, ``size``, ``part``, ``version``."""

    __slots__ = (
        "began", "checksum", "committing", "dst", "ended", "log", "moved", "mtime", "names", "order", "part",
        "side", "size", "told_at", "told_begin", "told_moved", "version",
    )  # fmt: skip

    def __init__(self, order: Order) -> None:
        self.order = order
        self.began = self.told_at = time.monotonic()
        self.log: list[str] = []
        #: Whose storage we deal with now: "src", "dst".
        self.side = "src"
        self.size = -1
        self.moved = self.told_moved = 0
        self.version = ""
        self.checksum = ""
        #: Where it goes, in the order's own words; another than the order's where a folder keeps its name.
        self.dst = order.dst
        self.mtime: int | None = None
        self.names: int | None = None
        #: A part is at the target, or may be.
        self.part = False
        self.told_begin: tuple[bool, str, str] | None = None
        self.ended = self.committing = False

    def say(self, line: str) -> None:
        self.log.append(line)


def again(error: BaseException) -> bool:
    """May another try help?"""
    if isinstance(error, StorageFailed):
        return error.trouble in _AGAIN
    return not isinstance(error, Refused)


def code_of(error: BaseException) -> int:
    """The errno-like number that an element ends with."""
    if isinstance(error, StorageFailed):
        return CODES[error.trouble]
    if isinstance(error, Refused):
        return error.code
    if isinstance(error, Cancelled):
        return errno.ECANCELED
    return (error.errno if isinstance(error, OSError) else None) or errno.EIO


def words_of(error: BaseException) -> str:
    """A sentence for the log."""
    if isinstance(error, StorageFailed | Refused):
        return str(error)
    if isinstance(error, Cancelled):
        return "cancelled"
    return f"{type(error).__name__}: {error}"
