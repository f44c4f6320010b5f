"""What a listing found becomes elements: pure, and the INSERT of them.

Source: contract page 40, "Elements". COPY: one per regular file, one for each directory in which there is
nothing (``src`` and ``dst`` end in "/"). REMOVE: in each directory the files before the sub-directories, the
top directory last; a directory's phase makes it wait for all that is deeper.

Inside of this module a path is text in which a byte that is no UTF-8 stands as a lone surrogate
(surrogateescape).
"""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from django.db.backends.utils import CursorWrapper

from workers.vocabulary.transfers.names import escape, name_from_wire
from workqueue.book.rows import whole
from workqueue.models import Job
from workqueue.models.jobs import Type

#: Of elements that wait for the listing only.
FILES: Final = 1
#: Phase of the top directory of a REMOVE; one deeper, one less.
TOP: Final = 1_000_000
#: A piece of a kept listing before it is compressed, in bytes.
PIECE: Final = 256 * 1024

_ELEMENTS: Final = """
    INSERT INTO workqueue_element (job_id, number, type, max_tries, src_filepath, dst_filepath, escaped, size,
        mtime, phase)
    SELECT %s, %s + u.n - 1, %s, %s, u.src, u.dst, u.escaped, u.size, u.mtime, u.phase
    FROM unnest(%s::text[], %s::text[], %s::bool[], %s::bigint[], %s::bigint[], %s::int[])
        WITH ORDINALITY AS u(src, dst, escaped, size, mtime, phase, n)
"""
_PARTS: Final = """
    INSERT INTO workqueue_listingpart (job_id, number, attempt, report, names, data)
    SELECT %s, %s, %s, u.* FROM unnest(%s::bigint[], %s::int[], %s::bytea[]) u
"""


class Found(NamedTuple):
    """An element to be; paths in the form of ``names.name_to_wire`` where ``escaped``."""

    src: str
    dst: str | None
    escaped: bool
    size: int
    mtime: int | None
    phase: int


class Tree:
    """The elements of a COPY or REMOVE, folder by folder as a report tells them."""

    def __init__(self, job: Job) -> None:
        self._copies = job.type == Type.COPY
        self._escaped = job.escaped
        self._top = _inner(job.src_filepath, job.escaped).rstrip("/") or "/"
        self._dst = _inner(job.dst_filepath or "", job.escaped)

    def found(self, line: dict[str, Any]) -> list[Found]:
        """The elements of one ``folder`` line. Raises KeyError, TypeError, ValueError for a bad line."""
        escaped = bool(line.get("x"))
        folder = _inner(line["d"], escaped)
        names = [(_inner(item[0], escaped), item[1], item[2], item[3]) for item in line["e"]]
        rows = self._copied(folder, names, line) if self._copies else self._removed(folder, names, line)
        if escaped or self._escaped:
            return [_to_wire(row) for row in rows]
        return list(rows)

    def _inside(self, folder: str) -> bool:
        top = self._top
        return folder == top or folder.startswith(top if top == "/" else f"{top}/")

    def _alone(self, folder: str, names: Sequence[Any]) -> Sequence[Any]:
        """The only name of a folder that is not inside: what was asked for is no folder."""
        head, slash, _ = self._top.rpartition("/")
        if folder != (head or slash) or len(names) != 1:
            raise ValueError(
                f"{folder!r} is neither inside of {self._top!r} nor the folder of this file alone"
            )
        return names

    def _relative(self, folder: str) -> str:
        """Of a folder inside, "" for the top."""
        return folder.removeprefix(self._top).lstrip("/")

    def _copied(self, folder: str, names: Sequence[Any], line: dict[str, Any]) -> Iterator[Found]:
        if not self._inside(folder):
            # A single file: what its new name is, the target's storage tells.
            for _, _, size, mtime in self._alone(folder, names):
                yield Found(self._top, self._dst, False, whole(size), _time(mtime), FILES)
            return
        here, relative = _below(folder), self._relative(folder)
        there = self._dst.rstrip("/") + "/" + (f"{relative}/" if relative else "")
        empty = bool(line.get("first") and line.get("last"))
        for name, mode, size, mtime in names:
            if stat.S_ISREG(mode) or not stat.S_IFMT(mode):
                empty = False
                yield Found(here + name, there + name, False, whole(size), _time(mtime), FILES)
            elif stat.S_ISDIR(mode):
                empty = False
        if empty:
            yield Found(here, there, False, 0, None, FILES)

    def _removed(self, folder: str, names: Sequence[Any], line: dict[str, Any]) -> Iterator[Found]:
        if not self._inside(folder):
            for _, _, size, mtime in self._alone(folder, names):
                yield Found(self._top, None, False, whole(size), _time(mtime), FILES)
            return
        here, relative = _below(folder), self._relative(folder)
        folders = []
        for name, mode, size, mtime in names:
            if stat.S_ISDIR(mode):
                folders.append(name)
            else:
                yield Found(here + name, None, False, whole(size), _time(mtime), FILES)
        depth = relative.count("/") + 2 if relative else 1
        for name in folders:
            yield Found(f"{here}{name}/", None, False, 0, None, TOP - depth)
        if not relative and line.get("last"):
            yield Found(here, None, False, 0, None, TOP)


def insert(cursor: CursorWrapper, job: Job, max_tries: int, rows: Sequence[Found]) -> None:
    """Write elements, numbered on from the job's last one; the caller counts them."""
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        cursor.execute(_ELEMENTS, [job.pk, job.elements, job.type, max_tries, *columns])


class Listing:
    """Lines of a listing as they came, compressed into pieces."""

    def __init__(self) -> None:
        self._pieces: list[tuple[int, int, bytes]] = []
        self._lines: list[bytes] = []
        self._at = self._size = self._names = 0

    def add(self, at: int, line: bytes, names: int) -> None:
        """A line that begins at byte ``at`` of the report and has so many names."""
        if not self._lines:
            self._at = at
        self._lines.append(line)
        self._size += len(line)
        self._names += names
        if self._size >= PIECE:
            self._cut()

    def _cut(self) -> None:
        if self._lines:
            self._pieces.append((self._at, self._names, zlib.compress(b"".join(self._lines), 3)))
        self._lines, self._size, self._names = [], 0, 0

    def write(self, cursor: CursorWrapper, job_id: int, number: int, attempt: int) -> None:
        """Write the pieces, all that came."""
        self._cut()
        if self._pieces:
            columns = [list(column) for column in zip(*self._pieces, strict=True)]
            cursor.execute(_PARTS, [job_id, number, attempt, *columns])
            self._pieces = []


def names(cursor: CursorWrapper, job_id: int, number: int, attempt: int) -> int:
    """How many names of a listing are kept."""
    cursor.execute(
        """SELECT coalesce(sum(names), 0)::bigint FROM workqueue_listingpart
           WHERE job_id = %s AND number = %s AND attempt = %s""",
        [job_id, number, attempt],
    )
    return int(cursor.fetchone()[0])


def _below(folder: str) -> str:
    return folder if folder.endswith("/") else f"{folder}/"


def _time(mtime: Any) -> int | None:
    return None if mtime is None else whole(mtime)


def _inner(text: str, escaped: bool) -> str:
    return name_from_wire(text, True).decode("utf-8", "surrogateescape") if escaped else text


def _to_wire(row: Found) -> Found:
    """Both paths in one form: that of names that are no UTF-8 when one of them is none."""
    try:
        row.src.encode()
        (row.dst or "").encode()
    except UnicodeEncodeError:
        dst = None if row.dst is None else _escape(row.dst)
        return row._replace(src=_escape(row.src), dst=dst, escaped=True)
    return row


def _escape(path: str) -> str:
    return escape(path.encode("utf-8", "surrogateescape"))
