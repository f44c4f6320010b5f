"""Writes what a worker's watchers have to tell the database, in groups: one commit for all that is waiting.

Like a group commit: one thread takes whatever has been queued and writes it in one transaction, so that
under load many runs share a commit and an idle system waits for nobody. What they have to ask before a start
is asked in the same groups, and answered before anything is written. While the database is away it
keeps everything and tries again; nothing is told as written before its commit. Must not import runtimes.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction
from django.db.backends.utils import CursorWrapper

from workers.logs import store
from workers.logs.capture import Report, Shipment
from workers.messages import doorbell
from workers.runs import running, transitions
from workers.vocabulary.crashpoints import step
from workers.vocabulary.leases import Lease, Outcome
from workers.vocabulary.states import State
from workers.vocabulary.transfers.book import book

log = structlog.get_logger(__name__)

#: Most entries and most bytes of output in one transaction.
_GROUP = 64
_GROUP_BYTES = 8 * 1024 * 1024


@dataclass
class Entry:
    """One thing to write; ``done`` tells whether it was ours to write (False: the lease was taken away).

    "may_start" writes nothing: its answer is ``done``, and ``cancel`` with who no longer wants the run.
    """

    what: Literal[
        "told", "phase", "storing", "facts", "may_start", "started", "finish", "retry", "release", "log"
    ]
    lease: Lease
    outcome: Outcome | None = None
    since: float = 0.0  # time.monotonic() of its start
    message: str = ""
    shipment: Shipment | None = None
    #: Whose books take the shipment's report.
    family: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    cancel: Literal["", "client", "operator"] = ""
    done: Future[bool] = field(default_factory=Future)

    def size(self) -> int:
        if self.shipment is None:
            return 0
        lines = self.shipment.report.lines if self.shipment.report else ()
        return sum(len(chunk.data) for chunk in self.shipment.chunks) + sum(map(len, lines))

    def reports(self) -> bool:
        """Is something of it for the books of a family?"""
        return self.shipment is not None and self.shipment.report is not None


class Scribe:
    """The writing thread of one worker."""

    def __init__(self, node_name: str, freed: Callable[[], None]) -> None:
        self._by = node_name
        self._freed = freed
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_forever, name="scribe", daemon=True)
        self._stopping = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Write what is queued, then end; gives up after ``timeout_s``: the next worker recovers it."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(timeout_s)

    def write(self, entry: Entry) -> Future[bool]:
        """Queue an entry. The future is False when the lease was no longer ours and nothing was written."""
        self._queue.put(entry)
        return entry.done

    def _write_forever(self) -> None:
        while True:
            group = self._next_group()
            if group is None:
                return
            if group:
                self._write_until_written(group)

    def _next_group(self) -> list[Entry] | None:
        first = self._queue.get()
        if first is None:
            return None
        group, size = [first], first.size()
        if first.reports():
            return group
        while len(group) < _GROUP and size < _GROUP_BYTES:
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                break
            if entry is None:
                self._queue.put(None)
                break
            group.append(entry)
            size += entry.size()
            if entry.reports():
                break  # it locks rows of its family: two such ones together could wait for each other
        return group

    def _write_until_written(self, group: list[Entry]) -> None:
        wait = 0.1
        while True:
            try:
                group = self._answer(group)
                written = self._write(group) if group else set()
            except (OperationalError, InterfaceError) as error:
                log.warning(
                    "scribe.database_away", error=str(error).strip(), waiting=len(group), next_try_s=wait
                )
                with contextlib.suppress(Exception):
                    connection.close()
                if self._stopping.wait(wait) and wait >= 2.0:
                    self._fail(group, error)
                    return
                wait = min(wait * 2, 2.0)
                continue
            except Exception as error:
                # One bad entry must not hold up the others, whatever is wrong with it, nor end this thread:
                # write them one by one, and tell who it was.
                connection.close()
                if len(group) > 1:
                    for entry in group:
                        self._write_until_written([entry])
                    return
                log.exception(
                    "scribe.refused", run=group[0].lease.run_id, what=group[0].what, error=str(error).strip()
                )
                self._fail(group, error)
                return
            connection.close()
            for entry in group:
                entry.done.set_result(entry.lease.run_id in written)
            ended = [entry for entry in group if entry.what in ("finish", "retry", "release")]
            if ended:
                self._freed()
            if any(entry.family in settings.GANTRY_BATCHES for entry in ended):
                doorbell.ring_duties()  # what its batch still has can be handed out again
            return

    @staticmethod
    def _fail(group: list[Entry], error: Exception) -> None:
        for entry in group:
            entry.done.set_exception(error)

    def _answer(self, group: list[Entry]) -> list[Entry]:
        """Ask for all that want to start, and tell them at once; returns the rest of the group."""
        asking = [entry for entry in group if entry.what == "may_start"]
        if not asking:
            return group
        with connection.cursor() as cursor:
            answers = running.may_start(cursor, [entry.lease for entry in asking])
        for entry in asking:
            operator = answers.get(entry.lease)
            entry.cancel = "" if operator is None else "operator" if operator else "client"
            entry.done.set_result(entry.lease in answers)
        return [entry for entry in group if entry.what != "may_start"]

    def _write(self, group: list[Entry]) -> set[int]:
        """One transaction. Entries of one run keep their order: logs and start before the end."""
        by_kind: dict[str, list[Entry]] = {}
        for entry in group:
            by_kind.setdefault(entry.what, []).append(entry)
        ours: set[int] = set()
        with transaction.atomic(), connection.cursor() as cursor:
            # The moment that now() means: what waits for locks below must not date a start earlier.
            now = time.monotonic()
            if len(group) > 1:
                transitions.lock(cursor, [entry.lease.run_id for entry in group])
            ours |= self._say(cursor, by_kind, group)
            if beginnings := by_kind.get("started"):
                step("runner.before_started_commit")
                # Not when it was queued: the database may have been away since.
                ours |= running.started(
                    cursor, [(entry.lease, now - entry.since, entry.message) for entry in beginnings]
                )
            if pieces := by_kind.get("log"):
                step("runner.before_log_commit")
                held = running.held(cursor, [entry.lease for entry in pieces])
                self._store(cursor, [entry for entry in pieces if entry.lease.run_id in held])
                ours |= held
            endings = [entry for kind in ("finish", "retry", "release") for entry in by_kind.get(kind, ())]
            if endings:
                step("runner.before_finish_commit")
                ended = self._end(cursor, by_kind)
                self._store(cursor, [entry for entry in endings if entry.lease.run_id in ended])
                ours = (ours - {entry.lease.run_id for entry in endings}) | ended
        if by_kind.get("started"):
            step("runner.after_started_commit")
        if by_kind.get("log"):
            step("runner.after_log_commit")
        if endings:
            step("runner.after_finish_commit")
        return ours

    def _say(self, cursor: CursorWrapper, by_kind: dict[str, list[Entry]], group: list[Entry]) -> set[int]:
        """What is being done, and what was found out, about attempts that run."""
        ours: set[int] = set()
        if words := by_kind.get("told"):
            ours |= running.told(cursor, [(entry.lease, entry.message) for entry in words])
        if words := by_kind.get("storing"):
            ours |= running.told(cursor, [(entry.lease, entry.message) for entry in words], started=True)
        if phases := by_kind.get("phase"):
            ours |= running.phase(cursor, [(entry.lease, entry.message) for entry in phases], by=self._by)
        if told := [entry for entry in group if entry.what in ("facts", "started") and entry.facts]:
            ours |= running.tell(cursor, [(entry.lease, entry.facts) for entry in told])
        return ours

    def _end(self, cursor: CursorWrapper, by_kind: dict[str, list[Entry]]) -> set[int]:
        finishing = [entry.outcome for entry in by_kind.get("finish", ()) if entry.outcome]
        ended: set[int] = set()
        if retrying := [entry.outcome for entry in by_kind.get("retry", ()) if entry.outcome]:
            again = transitions.retry(cursor, retrying, by=self._by)
            ended |= again
            # A cancel came first: the attempt's own end is the run's end.
            finishing += [item for item in retrying if item.lease.run_id not in again]
        if releasing := [entry.outcome for entry in by_kind.get("release", ()) if entry.outcome]:
            back = transitions.release(cursor, releasing, by=self._by)
            ended |= back
            finishing += [
                Outcome(item.lease, State.CANCELLED, message="Cancelled before it started")
                for item in releasing
                if item.lease.run_id not in back
            ]
        if finishing:
            ended |= transitions.finish(cursor, finishing, by=self._by)
        return ended

    @staticmethod
    def _store(cursor: CursorWrapper, entries: Sequence[Entry]) -> None:
        told = [(entry.lease, entry.shipment) for entry in entries if entry.shipment is not None]
        rows = [
            (lease.run_id, lease.attempt, chunk.stream, chunk.offset, chunk.data)
            for lease, shipment in told
            for chunk in shipment.chunks
        ]
        if rows:
            store.insert(cursor, rows)
        for lease, shipment in told:
            for stale in shipment.stale:
                store.delete_middle(cursor, lease.run_id, lease.attempt, stale.stream, stale.start, stale.end)
        for entry in entries:
            if entry.shipment is not None and (report := entry.shipment.report) is not None:
                _enter(cursor, entry, report)


def _enter(cursor: CursorWrapper, entry: Entry, report: Report) -> None:
    """Bring a report to its family's books. Whatever they have against it concerns this entry alone."""
    try:
        book(entry.family).report(cursor, entry.lease, report.offset, report.lines)
    except (DatabaseError, InterfaceError):
        raise
    except Exception as error:
        raise ValueError(f"the books of {entry.family} refuse a report: {error!r}") from error
