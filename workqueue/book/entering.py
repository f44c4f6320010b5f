"""What a run reports is entered, once: progress, ends, what a listing found.

A report is a file that only grows; up to which byte of it everything is in the books stands in the batch, in
the same transaction. However many lines come, they cost the same few statements. A bad line is logged and
passed over: it concerns no other.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import connection
from django.db.backends.utils import CursorWrapper

from workers.messages import doorbell
from workers.vocabulary.leases import Lease
from workers.vocabulary.transfers.orders import OPTIONS
from workqueue.book import ending, expanding, flow
from workqueue.book.rows import Row, change, read, whole
from workqueue.models import Job
from workqueue.models.jobs import Status, Type

log = structlog.get_logger(__name__)

#: Beside ``OPTIONS``: what the family itself knows of extra_opts.
KNOWN: Final = frozenset({*OPTIONS, "parents", "escaped"})
#: Longest log of an attempt that is kept, in characters.
LOG_MOST: Final = 64 * 1024

_BATCH: Final = """
    SELECT b.id, b.source_id, b.target_id, b.reported, b.reported_attempt, b.closed_at IS NOT NULL,
        coalesce(n.attributes ->> 'hostname', n.name, '')
    FROM workqueue_batch b LEFT JOIN workers_run r ON r.id = b.run_id
    LEFT JOIN workers_node n ON n.id = r.node_id
    WHERE b.id = %s
"""


@dataclass
class _Books:
    """What one call changes."""

    job: Job
    batch_id: int
    holder: ending.Holder
    rows: dict[int, Row]
    ended: list[ending.Ended] = field(default_factory=list)
    found: list[expanding.Found] = field(default_factory=list)
    listing: expanding.Listing = field(default_factory=expanding.Listing)
    tree: expanding.Tree | None = None
    #: What links are told of.
    succeeded: int = 0
    failed: int = 0
    moved: int = 0
    busy_s: float = 0.0
    bytes_done: int = 0
    #: Sides whose endpoints were to blame.
    blamed: set[str] = field(default_factory=set)


def reported_until(lease: Lease) -> int:
    """Up to which byte of the attempt's report everything is in the books."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reported FROM workqueue_batch WHERE run_id = %s AND reported_attempt = %s",
            [lease.run_id, lease.attempt],
        )
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def report(cursor: CursorWrapper, lease: Lease, offset: int, lines: Sequence[bytes]) -> None:
    """Enter whole lines of the attempt's report that begin at byte ``offset``; see ``Book.report``.

    ValueError when lines before them are missing.
    """
    cursor.execute("SELECT id, job_id FROM workqueue_batch WHERE run_id = %s", [lease.run_id])
    known = cursor.fetchone()
    job = ending.lock(known[1]) if known else None
    if job is None:
        log.warning("book.no_batch", run=lease.run_id)
        return
    cursor.execute(_BATCH, [known[0]])
    batch_id, source_id, target_id, until, attempt, closed, host = cursor.fetchone()
    holder = ending.Holder(lease.run_id, host)
    if lease.attempt < attempt:
        return
    if lease.attempt > attempt:
        if until:  # what the attempt before had begun is over
            why = (ending.LOST, f"Lost with attempt {attempt} of run {lease.run_id}")
            ending.give_up(cursor, job, batch_id, holder, why, wait_s=0.0, begun=True)
        until = 0
    if offset > until:
        raise ValueError(f"run {lease.run_id} reports from byte {offset}, entered is up to {until}")
    end = offset + sum(map(len, lines))
    if end <= until:
        return
    cursor.execute(
        "UPDATE workqueue_batch SET reported = %s, reported_attempt = %s WHERE id = %s",
        [end, lease.attempt, batch_id],
    )
    told = [] if closed else list(_told(lease, offset, until, lines))
    enter(cursor, job, Place(batch_id, source_id, target_id), holder, told)


@dataclass(frozen=True, slots=True)
class Place:
    """A batch, and between which sites its files go."""

    batch_id: int
    source_id: int
    target_id: int | None


def enter(
    cursor: CursorWrapper,
    job: Job,
    place: Place,
    holder: ending.Holder,
    told: Sequence[tuple[int, bytes, dict[str, Any]]],
) -> None:
    """Enter lines of a batch's report: where each begins, as it came, what it says. The job is locked.

    Of an element that is not the batch's any more nothing is entered.
    """
    if not told:
        return
    numbers = {line["n"] for _, _, line in told if isinstance(line.get("n"), int)}
    books = _Books(job, place.batch_id, holder, read(cursor, job.pk, place.batch_id, sorted(numbers)))
    for at, raw, line in told:
        try:
            _enter(cursor, books, at, raw, line)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            log.warning("book.bad_line", batch=place.batch_id, at=at, error=repr(error))
    _write(cursor, books)
    if job.type == Type.COPY and place.target_id is not None:
        window = {"succeeded": books.succeeded, "failed": books.failed, "moved": books.moved}
        flow.tell(cursor, place.source_id, place.target_id, **window, busy_s=books.busy_s)


def _told(
    lease: Lease, offset: int, until: int, lines: Sequence[bytes]
) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """The lines that are new: where each begins, as it came, and what it says."""
    at = offset
    for raw in lines:
        begins, at = at, at + len(raw)
        if begins < until:
            continue
        try:
            line = json.loads(raw)
            if not isinstance(line, dict):
                raise ValueError("no object")
            if rb"\ud" in raw or rb"\uD" in raw or rb"\u0000" in raw:
                line = _storable(line)
        except (ValueError, RecursionError) as error:
            log.warning("book.bad_line", run=lease.run_id, at=begins, error=repr(error))
            continue
        yield begins, raw, line


def _storable(line: dict[str, Any]) -> dict[str, Any]:
    """Text that no database takes is replaced in words for people, and refused in names."""
    if line.get("r") == "folder":
        text = json.dumps(line, ensure_ascii=False)
        text.encode()  # UnicodeEncodeError, a ValueError, for half a character
        if "\\u0000" in text:
            raise ValueError("a name has a NUL")
        return line
    return {
        key: value.replace("\0", "").encode(errors="replace").decode() if isinstance(value, str) else value
        for key, value in line.items()
    }


def _enter(cursor: CursorWrapper, books: _Books, at: int, raw: bytes, line: dict[str, Any]) -> None:
    what = line["r"]
    if what == "note":
        return  # the runner's: it is the run's message
    row = books.rows.get(line["n"])
    if row is None or row.status not in (Status.SUBMITTED, Status.RUNNING) or not row.held:
        return  # it has ended meanwhile, or is not of this batch
    if what == "begin":
        if line["attempt"] == row.attempts + 1:
            row.begin(line)
    elif what == "move":
        row.move(line)
    elif what == "folder":
        _folder(books, row, at, raw, line)
    elif what == "end":
        if line["attempt"] == row.attempts + 1:
            _end(cursor, books, row, line)
    else:
        raise ValueError(f"there is no report of {what!r}")


def _folder(books: _Books, row: Row, at: int, raw: bytes, line: dict[str, Any]) -> None:
    if row.type != Type.LIST:
        raise ValueError("names of an element that is no LIST")
    row.status = Status.RUNNING
    if books.job.type in (Type.COPY, Type.REMOVE):
        if books.tree is None:
            books.tree = expanding.Tree(books.job)
        books.found += books.tree.found(line)
    books.listing.add(at, raw, len(line["e"]))


def _end(cursor: CursorWrapper, books: _Books, row: Row, line: dict[str, Any]) -> None:
    job, ok = books.job, line["ok"] is True
    code = max(-(2**31), min(2**31 - 1, int(line.get("code") or 0)))
    moved, elapsed = whole(line.get("moved") or 0), float(line.get("elapsed") or 0.0)
    words = str(line.get("log") or "")
    names = None
    if row.type == Type.LIST and ok:
        names = whole(line.get("names") or 0)
        books.listing.write(cursor, job.pk, row.number, row.attempts + 1)
        arrived = expanding.names(cursor, job.pk, row.number, row.attempts + 1)
        if "names" in line and arrived != names:
            # Half a tree is no tree: an operation on it would be called done.
            ok, words = (
                False,
                f"{words}\nThe listing has {names} names, {arrived} of them were reported".strip(),
            )
    if row.type == Type.LIST and not ok:
        books.found.clear()
        books.listing = expanding.Listing()
        names = None
    if job.cancel_requested_at is not None:
        line = {**line, "again": False}  # nothing of it is tried again
    row.end(line, ok=ok, wait_s=_backoff_s(row.attempts))
    if not ok:
        books.blamed.add(str(line.get("avoid")))
    status = Status.DONE if ok else Status.FAILED
    told_at = str(line.get("told_at") or "") or ending.stamp(line.get("at"))
    code = code if ok else code or 1
    ignored = sorted(set(job.extra_opts) - KNOWN) if row.number == 0 else []
    first = ending.head(books.holder.host, code, told_at, ignored)
    text = f"{first}\n{_shortened(words)}" if words else first
    books.ended.append(ending.Ended(row.number, row.attempts, status, code, told_at, text, names))
    if row.type == Type.COPY:
        books.bytes_done += (row.size or 0) if ok else 0
        books.succeeded += ok
        books.failed += not ok and line.get("again", True) is True
        books.moved += moved
        books.busy_s += elapsed


def _shortened(words: str) -> str:
    if len(words) <= LOG_MOST:
        return words
    return f"{words[: LOG_MOST // 2]}\n...\n{words[-LOG_MOST // 2 :]}"


def _backoff_s(attempts: int) -> float:
    """How long an element waits whose try after ``attempts`` others has failed."""
    wait = min(settings.GANTRY_TRANSFER_RETRY_CAP_S, settings.GANTRY_TRANSFER_RETRY_BASE_S * 2**attempts)
    return float(wait * random.uniform(0.7, 1.0))  # noqa: S311  jitter, no secret


def _write(cursor: CursorWrapper, books: _Books) -> None:
    job, rows = books.job, books.rows
    first = rows.get(0)
    if first is not None and first.type == Type.LIST and first.held:
        books.listing.write(cursor, job.pk, 0, first.attempts + 1)
    expanding.insert(cursor, job, first.max_tries if first else job.max_tries, books.found)
    change(cursor, job.pk, rows.values())
    ending.enter(cursor, job, books.holder, books.ended)
    moved: Counter[tuple[int | None, int]] = Counter(
        (row.before, row.status) for row in rows.values() if row.before != row.status
    )
    more = {
        "elements": len(books.found),
        "bytes_total": sum(item.size for item in books.found) if job.type == Type.COPY else 0,
        "bytes_done": books.bytes_done,
    }
    if first is not None and first.type == Type.LIST and not first.held:
        if first.status == Status.DONE:
            more["elements"] += _open(cursor, job, len(books.found), moved)
        else:
            ending.forget_listings(cursor, job)
    if moved or any(more.values()):
        ending.count(job, moved, **more)
    if books.blamed & {"src", "dst"}:
        cursor.execute(
            """UPDATE workqueue_batch SET src_blamed = src_blamed OR %s, dst_blamed = dst_blamed OR %s
               WHERE id = %s""",
            ["src" in books.blamed, "dst" in books.blamed, books.batch_id],
        )
    if books.ended:
        if _close(cursor, books.batch_id):
            doorbell.ring_duties_after_commit()
        ending.finish(cursor, job)


def _open(cursor: CursorWrapper, job: Job, inserted: int, moved: Counter[tuple[int | None, int]]) -> int:
    """The listing is DONE: what it found is counted from now on; returns how many elements it adds."""
    if job.type == Type.RENAME:
        cursor.execute(
            """INSERT INTO workqueue_element (job_id, number, type, src_filepath, dst_filepath, escaped,
                   max_tries, phase) SELECT job_id, 1, %s, src_filepath, %s, escaped, max_tries, %s
               FROM workqueue_element WHERE job_id = %s AND number = 0""",
            [Type.RENAME, job.dst_filepath, expanding.FILES, job.pk],
        )
        moved[None, Status.NEW] += 1
        return 1
    moved[None, Status.NEW] += job.elements - 1 + inserted
    return 0


def _close(cursor: CursorWrapper, batch_id: int) -> bool:
    """Its streams are free as soon as each of its elements has ended, whatever its run still does."""
    cursor.execute(
        """UPDATE workqueue_batch b SET closed_at = clock_timestamp() WHERE id = %s AND closed_at IS NULL
               AND NOT EXISTS (SELECT 1 FROM workqueue_element e WHERE e.batch_id = b.id)""",
        [batch_id],
    )
    return bool(cursor.rowcount)
