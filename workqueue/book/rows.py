"""Elements of a batch while a report is entered: read together, changed in memory, written together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.db.backends.utils import CursorWrapper

from workqueue.models.jobs import Status, Type

_COLUMNS: Final = (
    "number, type, status, attempts, max_tries, size, mtime, checksum, transferred, instant, elapsed, "
    "part_attempt, source_version, src_turn, dst_turn"
)
_READ: Final = f"""
    SELECT {_COLUMNS} FROM workqueue_element
    WHERE job_id = %s AND batch_id = %s AND number = ANY(%s) ORDER BY number
"""  # noqa: S608  constants
#: What is written back, with its type.
_WRITTEN: Final = {
    "number": "int",
    "status": "smallint",
    "attempts": "smallint",
    "size": "bigint",
    "mtime": "bigint",
    "checksum": "text",
    "transferred": "bigint",
    "instant": "float8",
    "elapsed": "float8",
    "part_attempt": "smallint",
    "source_version": "text",
    "src_turn": "smallint",
    "dst_turn": "smallint",
    "held": "bool",
    "wait_s": "float8",
}
_CHANGE: Final = f"""
    UPDATE workqueue_element e SET {
    ", ".join(f"{name} = u.{name}" for name in _WRITTEN if name not in ("number", "held", "wait_s"))
}, batch_id = CASE WHEN u.held THEN e.batch_id END,
        not_before = now() + u.wait_s * interval '1 second',
        changed_at = CASE WHEN e.status <> u.status THEN now() ELSE e.changed_at END
    FROM unnest({", ".join(f"%({name})s::{kind}[]" for name, kind in _WRITTEN.items())})
        AS u({", ".join(_WRITTEN)})
    WHERE e.job_id = %(job)s AND e.number = u.number
"""  # noqa: S608  constants
#: Where files go that keep their name inside of a folder, as the storage told.
_ELSEWHERE: Final = """
    UPDATE workqueue_element e SET dst_filepath = u.dst FROM unnest(%s::int[], %s::text[]) AS u(number, dst)
    WHERE e.job_id = %s AND e.number = u.number AND e.type = 1
"""
#: Longest texts that are kept.
_CHECKSUM_MOST: Final = 80


@dataclass(slots=True)
class Row:
    """An element; ``before`` is its status as read, ``held`` whether it stays with its batch."""

    number: int
    type: int
    status: int
    attempts: int
    max_tries: int
    size: int | None
    mtime: int | None
    checksum: str
    transferred: int | None
    instant: float | None
    elapsed: float | None
    part_attempt: int | None
    source_version: str
    src_turn: int
    dst_turn: int
    before: int = field(init=False)
    held: bool = True
    #: It goes there, and not where it was told to.
    dst: str | None = None
    #: Until its next try, in seconds.
    wait_s: float | None = None

    def __post_init__(self) -> None:
        self.before = self.status

    def begin(self, line: dict[str, Any]) -> None:
        """It runs from now on."""
        size = _optional(line.get("size"))
        version = str(line.get("version") or "")
        if self.status != Status.RUNNING:  # else it is told once more, with more to tell
            self.status = Status.RUNNING
            self.transferred, self.instant, self.elapsed = 0, None, None
        if size is not None and size >= 0 and self.type == Type.COPY:
            self.size = size
        if line.get("part"):
            self.part_attempt, self.source_version = self.attempts + 1, version
        self._goes(line)

    def move(self, line: dict[str, Any]) -> None:
        """How far it has come."""
        moved, instant, elapsed = (
            whole(line["moved"]),
            _number(line.get("instant")),
            _number(line.get("elapsed")),
        )
        self.status = Status.RUNNING
        self.transferred, self.instant, self.elapsed = moved, instant, elapsed

    def end(self, line: dict[str, Any], *, ok: bool, wait_s: float) -> None:
        """Its attempt is over; it has ended for good, or comes again in ``wait_s`` seconds."""
        size, mtime, moved = (_optional(line.get(name)) for name in ("size", "mtime", "moved"))
        elapsed = _number(line.get("elapsed"))
        self._goes(line)
        self.attempts += 1
        self.held = False
        if moved is not None:
            self.transferred = moved
        if elapsed is not None:
            self.elapsed = elapsed
        if ok:
            self.status = Status.DONE
            self.size = self.size if size is None else size
            self.mtime = self.mtime if mtime is None else mtime
            self.checksum = str(line.get("checksum") or "")[:_CHECKSUM_MOST]
            self.part_attempt, self.source_version = None, ""
            return
        if line.get("part") is not True:
            self.part_attempt, self.source_version = None, ""
        elif self.part_attempt != self.attempts:  # nobody told which version of the source it is of
            self.part_attempt, self.source_version = self.attempts, ""
        self.src_turn += line.get("avoid") == "src"
        self.dst_turn += line.get("avoid") == "dst"
        final = line.get("again", True) is not True or self.attempts >= self.max_tries
        self.status = Status.FAILED if final else Status.SUBMITTED
        self.wait_s = None if final else wait_s

    def _goes(self, line: dict[str, Any]) -> None:
        if line.get("dst"):
            self.dst = str(line["dst"])


def read(cursor: CursorWrapper, job_id: int, batch_id: int, numbers: Sequence[int]) -> dict[int, Row]:
    """Those of these elements that the batch has, by number."""
    wanted = [number for number in numbers if 0 <= number < 2**31]
    cursor.execute(_READ, [job_id, batch_id, wanted])
    return {found[0]: Row(*found) for found in cursor.fetchall()}


def change(cursor: CursorWrapper, job_id: int, rows: Iterable[Row]) -> None:
    """Write them back: one statement."""
    changed = list(rows)
    if changed:
        columns = {name: [getattr(row, name) for row in changed] for name in _WRITTEN}
        cursor.execute(_CHANGE, {**columns, "job": job_id})
    elsewhere = [row for row in changed if row.dst is not None]
    if elsewhere:
        numbers, paths = [row.number for row in elsewhere], [row.dst for row in elsewhere]
        cursor.execute(_ELSEWHERE, [numbers, paths, job_id])


def whole(value: Any) -> int:
    """A number that a column can hold; TypeError, ValueError, OverflowError."""
    found = int(value)
    if not -(2**63) <= found < 2**63:
        raise ValueError(f"{value} is too large")
    return found


def _optional(value: Any) -> int | None:
    return None if value is None else whole(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
