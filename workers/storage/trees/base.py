"""The protocol of a site's tree of files.

Rules for every tree (one conformance suite runs over all of them, tests/conformance/trees):
- A file appears whole under its name or not at all; what was there before stays until then.
- Bytes are streamed: nothing in memory grows with a file's size or with the number of names in a folder.
- Paths are bytes, absolute within the site (``b"/a/b"``; ``b"/"`` is the base path of its endpoint), without
  ``.``, ``..`` and doubled slashes: ``clean`` makes them. No path ever leaves the base path, whatever links
  say.
- A tree is used by many threads at once; how many connections it opens is its own matter (``streams``).
- Every failure is a ``StorageFailed`` with a sentence for a person that names the path and never a secret.
- Nothing is tried again in here; whoever calls decides (``temporary``). Nothing waits longer than ``STALL_S``
  for a silent peer.
- A symbolic link is told as such by ``scan``; ``stat`` and ``read`` follow it, as long as it stays in the
  base.

Must not import models, services, runtimes or families.
"""

from __future__ import annotations

import stat as modes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from workers.storage.base import PIECE as PIECE
from workers.storage.base import StorageFailed as StorageFailed
from workers.storage.base import Trouble as Trouble

#: Seconds without a byte from a peer.
STALL_S: Final = 60.0

#: Checksums that may be compared, the one that is used where nobody asks for another first.
ALGORITHMS: Final = ("adler32", "md5", "sha256")


class Entry(NamedTuple):
    """A file, folder, link or other thing. ``mode`` is st_mode with the type bits (made up where unknown:
    0o100644, 0o040755); ``size`` in bytes; ``mtime_ns`` in ns since 1970, 0 where it is not told.

    ``version`` changes whenever the content does (ETag; device, inode, mtime and size...); "" in ``scan``
    where it would cost a question. A tuple: a listing makes a million of them.
    """

    name: bytes
    mode: int
    size: int = 0
    mtime_ns: int = 0
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    atime: int = 0
    ctime: int = 0
    version: str = ""

    @property
    def is_file(self) -> bool:
        return modes.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        return modes.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return modes.S_ISLNK(self.mode)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a tree can do.

    ``appends``: an interrupted file can be resumed. ``renames``: of files and folders, at once.
    ``folders``: are real things (else an empty one is a marker object, and ``mkdir`` of a parent costs
    nothing). ``times`` and ``modes`` can be kept. ``checksums``: what the server tells by itself or reads
    for us cheaply, in the order of ALGORITHMS. ``any_bytes``: a name may be anything but NUL and "/"; else
    it is UTF-8, and what else it cannot hold ``receive`` and ``mkdir`` refuse with Trouble.NAME.
    """

    appends: bool = False
    renames: bool = True
    folders: bool = True
    times: bool = False
    modes: bool = False
    any_bytes: bool = False
    checksums: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A file to be written: the name of what is not whole yet.

    ``tag`` names the element for good among all installations ([A-Za-z0-9_-]); ``attempt`` is that of now.
    ``before`` is an earlier attempt that may have left a part: it is taken over under our name before
    anything is written (so whoever still writes it cannot make it visible any more), to go on where it
    ended with ``resume``, else to be thrown away.
    """

    tag: str
    attempt: int = 1
    before: int | None = None
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Keeping:
    """What the new file gets beside its content; None = the storage's default."""

    mtime_ns: int | None = None
    mode: int | None = None


class Receiving(Protocol):
    """A file that is being written; nobody sees it under its name before ``commit``. One thread.

    ``held``: how many bytes of it are there already, good for going on. Closed without commit the part
    stays for the next attempt, unless it is discarded.
    """

    held: int

    def send(self, piece: bytes) -> None:
        """The next bytes; any size, large ones are cut."""
        ...

    def finish(self) -> None:
        """All has been sent: after it the storage holds every byte, and says how many."""
        ...

    def checksum(self, algorithm: str) -> str:
        """Of what the storage holds now, after ``finish``: hexadecimal; "" where it cannot say so."""
        ...

    def commit(self, *, overwrite: bool, keeping: Keeping = Keeping()) -> Entry:
        """Make it visible, in one step; returns what is there now.

        Raises StorageFailed EXISTS where something is there that may not be replaced: a folder never may, a
        file only with ``overwrite``; asked in the same step where the storage can do that.
        """
        ...

    def discard(self) -> None:
        """Remove the part. Quiet where there is none."""
        ...

    def close(self) -> None:
        """Free what it holds; the part stays."""
        ...


class Tree(Protocol):
    """One endpoint of a site, reached as one user."""

    traits: Traits

    def home(self) -> bytes:
        """What ``~`` is: the account's home at SFTP, the site's default path elsewhere."""
        ...

    def stat(self, path: bytes) -> Entry:
        """Follows links. Raises StorageFailed MISSING."""
        ...

    def scan(self, path: bytes) -> Iterator[Entry]:
        """What is in a folder, in the storage's order, streamed; links are not followed.

        Raises StorageFailed MISSING, DENIED; NOT_FOLDER for a file.
        """
        ...

    def read(
        self, path: bytes, *, offset: int = 0, version: str = ""
    ) -> AbstractContextManager[Iterator[bytes]]:
        """The content from ``offset`` on, in pieces of at most 1 MiB.

        With ``version`` only that one where the storage can see to it: StorageFailed CHANGED otherwise.
        Ends early only by StorageFailed, or where the file has become shorter.
        """
        ...

    def receive(self, path: bytes, part: Part, size: int) -> Receiving:
        """Begin to write a file of ``size`` bytes. Its folder must be there (where folders are real)."""
        ...

    def discard(self, path: bytes, part: Part) -> None:
        """Remove what ``part.attempt`` (or ``part.before``) left beside ``path``. Quiet where there is
        nothing."""
        ...

    def checksum(self, path: bytes, algorithm: str) -> str:
        """Of the file as the server tells or computes it, without its content passing through us, or
        cheaply (a local file): hexadecimal; "" where it cannot. Raises StorageFailed MISSING."""
        ...

    def remove(self, path: bytes) -> None:
        """A file or a link (the link itself). Raises StorageFailed MISSING; IS_FOLDER."""
        ...

    def remove_folder(self, path: bytes) -> None:
        """An empty folder. Raises StorageFailed NOT_EMPTY, MISSING."""
        ...

    def mkdir(self, path: bytes, mode: int | None = None) -> None:
        """One folder. Raises StorageFailed EXISTS (whatever is there), MISSING (its parent)."""
        ...

    def rename(self, source: bytes, target: bytes, *, overwrite: bool = False) -> None:
        """A file or a folder, at once where the storage can. Raises StorageFailed EXISTS, MISSING."""
        ...

    def free_space(self, path: bytes) -> int | None:
        """Bytes that can still be written there; None where nobody can say."""
        ...

    def copy_here(
        self,
        source: Tree,
        path: bytes,
        receiving: Receiving,
        moved: Callable[[int], None],
        options: TransferOptions,
    ) -> bool:
        """Have a file's whole content brought into ``receiving`` (of this tree, nothing held) without its
        passing through our hands: copied by the server, sent by a third party, moved by the protocol's own
        tool.

        ``moved`` is told how many bytes more are there and may raise to end it. False: it cannot, nothing
        was done.
        """
        ...

    def copy_there(
        self,
        path: bytes,
        target: Tree,
        receiving: Receiving,
        moved: Callable[[int], None],
        options: TransferOptions,
    ) -> bool:
        """The same from this tree into another, asked when the target cannot ``copy_here``."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """``streams`` parallel data channels of one file, ``timeout_s`` for one file, ``rate`` bytes/s (None:
    free)."""

    streams: int = 1
    timeout_s: float = 3600.0
    rate: float | None = None


class Plain:
    """What a tree is that can do nothing special; trees inherit from it."""

    traits = Traits()
    default_path: bytes = b"/"

    def home(self) -> bytes:
        return self.default_path

    def checksum(self, path: bytes, algorithm: str) -> str:
        return ""

    def free_space(self, path: bytes) -> int | None:
        return None

    def copy_here(
        self,
        source: Tree,
        path: bytes,
        receiving: Receiving,
        moved: Callable[[int], None],
        options: TransferOptions,
    ) -> bool:
        return False

    def copy_there(
        self,
        path: bytes,
        target: Tree,
        receiving: Receiving,
        moved: Callable[[int], None],
        options: TransferOptions,
    ) -> bool:
        return False

    def close(self) -> None:
        pass


def shown(path: bytes) -> str:
    """A path for people: what is no UTF-8 or not printable is escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def clean(path: bytes) -> bytes:
    """An absolute path without doubled or trailing slashes and ".". Raises StorageFailed DENIED for ".." that
    leaves the base path, NAME for NUL."""
    if path.startswith(b"/") and not (b"/." in path or b"//" in path or b"\0" in path or path.endswith(b"/")):
        return path  # most of them are clean, and each is asked about several times
    if b"\0" in path:
        raise StorageFailed(f"{shown(path)}: a path cannot hold NUL", Trouble.NAME)
    found: list[bytes] = []
    for word in path.split(b"/"):
        if word == b"..":
            if not found:
                raise StorageFailed(f"{shown(path)} leads out of the site", Trouble.DENIED)
            found.pop()
        elif word not in (b"", b"."):
            found.append(word)
    return b"/" + b"/".join(found)


def inside(path: bytes) -> bytes:
    """``clean``, for what is written, removed or renamed: never the site itself (DENIED)."""
    path = clean(path)
    if path == b"/":
        raise StorageFailed("/: is the site itself, which nothing is done to", Trouble.DENIED)
    return path
