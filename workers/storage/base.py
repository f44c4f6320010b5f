"""The protocol of a storage: where a run's inputs come from and its outputs go to.

Rules for every storage (one conformance suite runs over all of them):
- What is stored appears whole under its name or not at all; what was there before stays until then.
- Bytes are streamed, a piece at a time: nothing grows with a file's size.
- ``tick`` (given to the storage when it is opened) is called at least every half second while anything is
  waited for, and after each piece; what it raises ends the operation at once and goes through.
- Every failure is a ``StorageFailed`` with a sentence for a person, which never holds a secret.
- Nothing is tried again in here but what renews an expired token; who calls decides (``temporary``).

Must not import models, services, runtimes or families.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from workers.vocabulary.errors import EngineError

#: Bytes in memory at once.
PIECE = 256 * 1024


class Trouble(Enum):
    """Why a storage did not do what it was asked."""

    MISSING = "missing"  # no such object, container or account
    DENIED = "denied"  # wrong credentials, or not allowed (401, 403)
    REFUSED = "refused"  # the guard does not let us go to its address
    AWAY = "away"  # no answer, cut off, too slow, or it said to come again (408, 429, 5xx)
    CHANGED = "changed"  # it is not the version any more that was asked for
    DAMAGED = "damaged"  # what arrived is not what was sent: checksum or size
    FULL = "full"  # a quota or the disk (413, 507)
    EXISTS = "exists"  # something is there already that may not be replaced
    NOT_EMPTY = "not_empty"  # a folder that still holds something
    NOT_FOLDER = "not_folder"  # a folder was expected, it is a file
    IS_FOLDER = "is_folder"  # a file was expected, it is a folder
    NAME = "name"  # the storage cannot hold such a name
    OTHER = "other"  # it said no for another reason


class StorageFailed(EngineError):
    """A storage's refusal or silence. ``status`` is the HTTP status where there was one."""

    code = "storage_failed"

    def __init__(self, message: str, trouble: Trouble, *, status: int | None = None) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.status = status

    @property
    def temporary(self) -> bool:
        """Another try, a little later, may help."""
        return self.trouble in (Trouble.AWAY, Trouble.DAMAGED, Trouble.CHANGED)


@dataclass(frozen=True)
class Stat:
    """What a storage tells about a file. ``size`` in bytes, -1 where it is not told (http).

    ``checksum`` is of the content ("md5:<hex>"; empty where the storage has none of the whole content);
    ``version`` changes whenever the content does; ``mark`` is that of the upload that stored it, if any.
    """

    size: int
    checksum: str = ""
    version: str = ""
    content_type: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Upload:
    """A file to be stored. ``file`` is a descriptor of a regular file, open for reading, ``size`` its length.

    ``mark`` names this upload for good ([A-Za-z0-9._-]): what it left behind when it was interrupted is found
    by it and used again. ``moved`` is told how many bytes more have been sent (or were there already).
    ``commit`` is asked right before the step that makes the file visible; what it raises ends the upload.
    """

    file: int
    size: int
    mark: str
    content_type: str = ""
    make_container: bool = False
    moved: Callable[[int], None] = field(default=lambda count: None, repr=False)
    commit: Callable[[], None] = field(default=lambda: None, repr=False)


class Storage(Protocol):
    """One storage, reached as one user. Paths are ``container/object``, decoded; a storage is used by one
    thread at a time and closed at the end."""

    def stat(self, path: str) -> Stat:
        """Raises StorageFailed: MISSING names what is missing, the container or the object."""
        ...

    def read(
        self, path: str, *, offset: int = 0, version: str = ""
    ) -> AbstractContextManager[Iterator[bytes]]:
        """The content from ``offset`` on, in pieces of at most ``PIECE`` bytes.

        With ``version`` only that one: StorageFailed CHANGED otherwise. Ends early only by StorageFailed.
        """
        ...

    def store(self, path: str, upload: Upload) -> Stat:
        """Store a file; idempotent by its mark: where it is there already with this mark, nothing is sent.

        What was there before under the name is replaced as a whole, and what belonged to it is removed.
        """
        ...

    def discard(self, path: str, mark_prefix: str) -> None:
        """Remove what interrupted uploads with such a mark have left for ``path``; never the file itself."""
        ...

    def remove(self, path: str) -> None:
        """Remove the file and all that belongs to it. Raises StorageFailed."""
        ...

    def close(self) -> None: ...
