"""A batch and its run: which endpoints it goes to, and what a node needs for it.

Source: contract page 40: protocol is a preference, each end uses its site's endpoint of that protocol, else
its first; another one after a failure. Nodes say what they speak, and which folders they offer, in their
attributes (``workers.scheduling.obstacles``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from django.db import connection
from django.db.backends.utils import CursorWrapper

from workers import services
from workers.scheduling.obstacles import LOCAL_ATTRIBUTE, STORAGE_ATTRIBUTE
from workers.services import Submission
from workers.vocabulary.specs import TransferSpec
from workers.vocabulary.transfers.reach import Protocol
from workqueue import hooks
from workqueue.book import ending
from workqueue.models import Batch, Job, Site
from workqueue.models.jobs import Status, Type

_TAKE: Final = """
    UPDATE workqueue_element SET batch_id = %s, status = 3, not_before = NULL,
        changed_at = CASE WHEN status = 0 THEN now() ELSE changed_at END
    WHERE job_id = %s AND number = ANY(%s)
"""


#: Of these elements those whose destination another job's element is being written to.
_CONTESTED: Final = """
    SELECT e.number FROM workqueue_element e JOIN workqueue_element o ON o.dst_filepath = e.dst_filepath
    JOIN workqueue_batch b ON b.id = o.batch_id
    WHERE e.job_id = %(job)s AND e.number = ANY(%(numbers)s) AND o.type = 1 AND o.batch_id IS NOT NULL
        AND o.job_id <> %(job)s AND b.target_id = %(target)s AND b.closed_at IS NULL
"""


class Waits(Exception):
    """Nothing of a job can be handed out now: why, as a sentence."""


@dataclass(frozen=True, slots=True)
class Way:
    """From where to where, over how many streams; ``roots``: the folders that nodes offer."""

    source: Site
    target: Site | None
    streams: int
    roots: set[str]


def spoken(name: str) -> str:
    """Our word for a documented one: SSH is SFTP."""
    return Protocol.SFTP if name == "SSH" else name


def choose(site: Site, preference: str, turn: int) -> int:
    """The index of the endpoint for an attempt. ``turn``: how many of them were to blame before."""
    protocols = [spoken(item["protocol"]) for item in site.endpoints]
    wanted = spoken(preference)
    first = protocols.index(wanted) if wanted in protocols else 0
    order = [first, *(index for index in range(len(protocols)) if index != first)]
    return order[turn % len(order)]


def roots() -> set[str]:
    """The folders that nodes offer as sites."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT DISTINCT key FROM workers_node n CROSS JOIN LATERAL jsonb_object_keys(n.attributes) key
               WHERE n.mode <> 'removed' AND starts_with(key, %s)""",
            [LOCAL_ATTRIBUTE],
        )
        return {key.removeprefix(LOCAL_ATTRIBUTE) for (key,) in cursor.fetchall()}


def root_of(path: str, offered: Collection[str]) -> str | None:
    """The folder that a node offers and that is ``path`` or above it, the closest one; None: no such."""
    above = [str(folder) for folder in (PurePosixPath(path), *PurePosixPath(path).parents)]
    return next((folder for folder in above if folder in offered), None)


def needs(endpoint: Mapping[str, Any], offered: Collection[str]) -> dict[str, list[str]] | str:
    """Constraints for a run that goes to an endpoint, or why no node can take it: a sentence."""
    protocol = spoken(endpoint["protocol"])
    found = {f"{STORAGE_ATTRIBUTE}{protocol.lower()}": ["yes"]}
    if protocol == Protocol.LOCAL:
        root = root_of(endpoint.get("path") or "/", offered)
        if root is None:
            return (
                f"no node offers the folder {endpoint.get('path')}: start a worker there whose "
                "GANTRY_LOCAL_SITES names it"
            )
        found[f"{LOCAL_ATTRIBUTE}{root}"] = ["yes"]
    return found


def banned(site: Site) -> str:
    """Why nothing of a site's is handed out; "" when it may be."""
    if not site.ban:
        return ""
    until = f" until {site.ban_until:%Y-%m-%dT%H:%M:%SZ}" if site.ban_until else ""
    return f"site {site.name} is banned{until}{': ' if site.ban_message else ''}{site.ban_message}"


def uncontested(cursor: CursorWrapper, job: Job, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Without elements to whose destination somebody else writes now: one writer for each path at a time.

    The caller holds the lock of handing out. ``rows`` begin with number, status, phase. Raises Waits when
    nothing is left.
    """
    if job.type != Type.COPY or job.target_id is None or not rows or not rows[0][2]:
        return list(rows)
    numbers = [row[0] for row in rows]
    cursor.execute(_CONTESTED, {"job": job.pk, "numbers": numbers, "target": job.target_id})
    contested = {number for (number,) in cursor.fetchall()}
    left = [row for row in rows if row[0] not in contested]
    if not left:
        raise Waits("another job writes to the same destination now: it goes on when that one has ended")
    return left


def make(cursor: CursorWrapper, job: Job, rows: Sequence[tuple[Any, ...]], way: Way) -> int:
    """A batch, its run, and the elements handed out, all in the caller's transaction; the job is locked.

    ``rows``: number, status, phase, type, size, src_turn, dst_turn, src_filepath; all of one phase and to the
    same endpoints. Empty: only parts of ended elements are swept away. Returns the batch. Raises Waits,
    LimitReached.
    """
    phase, kind, _, src_turn, dst_turn, path = rows[0][2:] if rows else (1, Type.COPY, 0, 0, 0, "")
    source, target = way.source, way.target
    src_endpoint = choose(source, job.protocol, src_turn)
    constraints = _needs(source, src_endpoint, way.roots)
    dst_endpoint = None
    if target is not None:
        dst_endpoint = choose(target, job.protocol, dst_turn)
        constraints |= _needs(target, dst_endpoint, way.roots)
    batch = Batch.objects.create(
        job=job,
        source_id=source.pk,
        # A listing goes over no link.
        target_id=target.pk if target is not None and phase else None,
        src_endpoint=src_endpoint,
        dst_endpoint=dst_endpoint,
        streams=way.streams,
        phase=phase,
    )
    many = f"{len(rows)} elements" if rows else "parts that are left over"
    what = f"{Type(kind).name} of {path if len(rows) == 1 else many} of job {job.pk}"
    run_id = services.submit(
        Submission(
            tenant_id=job.tenant_id,
            family=hooks.FAMILY,
            spec=TransferSpec(batch=batch.pk, summary=what),
            name=what[:255],
            constraints=constraints,
            priority=job.priority,
            owner_id=str(job.pk),
            private_to=job.user_id,
        )
    )
    Batch.objects.filter(pk=batch.pk).update(run_id=run_id)
    if rows:
        cursor.execute(_TAKE, [batch.pk, job.pk, [row[0] for row in rows]])
        ending.count(job, {(Status.NEW, Status.SUBMITTED): sum(row[1] == Status.NEW for row in rows)})
        if job.waiting_for:
            Job.objects.filter(pk=job.pk).update(waiting_for="")
    return int(batch.pk)


def _needs(site: Site, index: int, offered: Collection[str]) -> dict[str, list[str]]:
    found = needs(site.endpoints[index], offered)
    if isinstance(found, str):
        raise Waits(f"site {site.name}: {found}")
    return found
