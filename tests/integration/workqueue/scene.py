"""Jobs on the real tables, nodes whose mover is the test: reports as a mover writes them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, transaction

from workers.models import Node, Run, Tenant
from workers.runs import transitions
from workers.vocabulary.leases import Lease, Outcome
from workers.vocabulary.states import Reason, State
from workqueue import book
from workqueue.book import dispatching, opening, settling
from workqueue.models import Batch, Element, ElementAttempt, Job, Site
from workqueue.models.jobs import Status, Type

REGULAR, FOLDER, LINK, PIPE = 0o100644, 0o040755, 0o120777, 0o010644
NAMES = {
    Status.NEW: "num_new",
    Status.SUBMITTED: "num_submitted",
    Status.RUNNING: "num_running",
    Status.DONE: "num_done",
    Status.FAILED: "num_failed",
}


def entry(name: str, mode: int = REGULAR, size: int = 3, mtime: int = 1_700_000_000) -> list[Any]:
    """One name of a listing."""
    return [name, mode, size, mtime, 1, 0, 0, mtime, mtime]


def folder(
    path: str, *entries: list[Any], first: bool = True, last: bool = True, **more: Any
) -> dict[str, Any]:
    """One ``folder`` line of element 0."""
    return {"r": "folder", "n": 0, "d": path, "e": list(entries), "first": first, "last": last, **more}


def begin(n: int, attempt: int = 1, **more: Any) -> dict[str, Any]:
    return {"r": "begin", "n": n, "attempt": attempt, "at": 1_700_000_000, **more}


def end(n: int, attempt: int = 1, *, ok: bool = True, **more: Any) -> dict[str, Any]:
    return {"r": "end", "n": n, "attempt": attempt, "ok": ok, "code": 0 if ok else 5, "log": "said", **more}


def listed(*folders: dict[str, Any], attempt: int = 1) -> list[dict[str, Any]]:
    """A listing that ends well."""
    names = sum(len(line["e"]) for line in folders)
    return [begin(0, attempt), *folders, end(0, attempt, names=names)]


def wire(*lines: dict[str, Any]) -> list[bytes]:
    return [json.dumps(line).encode() + b"\n" for line in lines]


@dataclass
class Mover:
    """A claimed run whose mover is the test; ``sent`` is the report so far."""

    lease: Lease
    spec: dict[str, Any]
    sent: list[bytes] = field(default_factory=list)

    def orders(self) -> dict[str, Any] | None:
        return book.orders(self.lease, self.spec)

    def told(self) -> list[int]:
        """The numbers of the elements that it is told to do."""
        orders = self.orders()
        return [] if orders is None else [item["n"] for item in orders["elements"]]

    def report(self, *lines: dict[str, Any]) -> None:
        """Tell more; entered as the scribe does it."""
        raw = wire(*lines)
        offset = sum(map(len, self.sent))
        self.sent += raw
        self.enter(offset, raw)

    def enter(self, offset: int, lines: list[bytes]) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            transitions.lock(cursor, [self.lease.run_id])
            book.report(cursor, self.lease, offset, lines)

    def finish(self, state: State = State.SUCCEEDED, reason: Reason = Reason.NONE, message: str = "") -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            outcome = Outcome(self.lease, state, reason, message, started_ago=1.0)
            assert transitions.finish(cursor, [outcome], by="n1")


class Scene:
    """A tenant, a user, two sites on a node of their own, jobs between them."""

    def __init__(self) -> None:
        self.tenant, _ = Tenant.objects.get_or_create(name="default")
        self.user = User.objects.create(username="ann")
        self.node = Node.objects.create(
            name="n1",
            detached=False,
            incarnation=1,
            runtimes=["transfer"],
            attributes={"hostname": "host-1", "storage_local": "yes", "local:/data": "yes"},
            cpu_m_configured=64_000,
            cpu_m_total=64_000,
            mem_mb_configured=65_536,
            mem_mb_total=65_536,
        )
        self.source = self.site("here", "/data/here")
        self.target = self.site("there", "/data/there")

    def site(self, name: str, path: str, **given: Any) -> Site:
        return Site.objects.create(
            **{
                "tenant": self.tenant,
                "name": name,
                "visibility": "tenant",
                "by_operator": True,
                "endpoints": [{"protocol": "LOCAL", "path": path}],
                **given,
            }
        )

    def job(self, kind: Type = Type.COPY, src: str = "/tree", dst: str | None = "/copy", **given: Any) -> Job:
        with transaction.atomic():
            job = Job.objects.create(
                **{
                    "tenant": self.tenant,
                    "user": self.user,
                    "type": kind,
                    "source": self.source,
                    "target": self.target if kind == Type.COPY else None,
                    "src_filepath": src,
                    "dst_filepath": dst if kind in (Type.COPY, Type.RENAME) else None,
                    "protocol": "GRIDFTP",
                    "log_uid": "0" * 32,
                    **given,
                }
            )
            opening.begin(job)
        job.refresh_from_db()
        return job

    def claim(self) -> list[Mover]:
        """Every waiting run, claimed by the node, in order."""
        ids = list(Run.objects.filter(state=State.PENDING).order_by("pk").values_list("pk", flat=True))
        with transaction.atomic(), connection.cursor() as cursor:
            claimed = transitions.claim(cursor, self.node.pk, self.node.name, ids)
        return [Mover(run.lease, run.spec) for run in claimed]

    def movers(self) -> list[Mover]:
        """Hand out what can be handed out, and claim it."""
        dispatching.look()
        return self.claim()

    def opened(self, job: Job, *folders: dict[str, Any], attempt: int = 1) -> Job:
        """The job's listing has ended well."""
        (mover,) = [item for item in self.movers() if batch_of(item).job_id == job.pk]
        mover.report(*listed(*folders, attempt=attempt))
        mover.finish()
        job.refresh_from_db()
        return job


def batch_of(mover: Mover) -> Batch:
    return Batch.objects.get(run_id=mover.lease.run_id)


def elements(job: Job) -> list[Element]:
    return list(Element.objects.filter(job=job).order_by("number"))


def statuses(job: Job) -> list[Status]:
    return [Status(item.status) for item in elements(job)]


def settle() -> None:
    settling.look()


def assert_books() -> None:
    """Counters are what the rows say, nobody has an element that ended or is nobody's, attempts have logs."""
    fields = ("number", "status", "type", "size", "attempts", "batch_id")
    for job in Job.objects.all():
        rows = Element.objects.filter(job=job).order_by("number").values_list(*fields, named=True)
        assert job.elements == len(rows), f"{job}: {job.elements} elements, {len(rows)} rows"
        assert [item.number for item in rows] == list(range(len(rows)))
        counted = sum(getattr(job, name) for name in NAMES.values())
        known = rows if counted == len(rows) else rows[:1]
        assert len(known) == counted, f"{job}: {counted} counted of {len(rows)}"
        kept = Counter(item.status for item in known)
        assert {name: getattr(job, name) for name in NAMES.values()} == {
            name: kept[status] for status, name in NAMES.items()
        }, str(job)
        done = sum(item.size or 0 for item in rows if item.status == Status.DONE and item.type == Type.COPY)
        assert job.bytes_done == done
        open_batches = set(Batch.objects.filter(job=job, closed_at=None).values_list("pk", flat=True))
        tried = Counter(ElementAttempt.objects.filter(job=job).values_list("number", flat=True))
        for item in rows:
            assert item.attempts == tried[item.number], item
            if item.status == Status.RUNNING:
                assert item.batch_id in open_batches, item
            if item.status in (Status.NEW, Status.DONE):
                assert item.batch_id is None, item
            if item.batch_id is not None:
                assert item.batch_id in open_batches, item
        if job.finished_at is not None:
            assert not job.num_new + job.num_submitted + job.num_running, str(job)
            assert counted == len(rows), str(job)
