"""The manifest of a finished job, streamed: nothing in memory grows with its elements."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

from workers.logs.store import release
from workers.tenants import signing_keys
from workers.vocabulary.errors import Conflict
from workqueue.models import Element, Job
from workqueue.models.jobs import Status, Type
from workqueue.receipts.lines import line, signed_part

_AT_ONCE: Final = 2000
#: Bytes that are handed on together.
_PIECE: Final = 64 * 1024
_COLUMNS: Final = (
    "number", "type", "src_filepath", "dst_filepath", "escaped", "size", "mtime", "checksum", "status",
    "attempts",
)  # fmt: skip


def manifest(job: Job) -> Iterator[bytes]:
    """Head and lines. Raises Conflict while the job has work left."""
    if job.finished_at is None:
        raise Conflict(f"job {job.pk} has not ended: its manifest is made when nothing of it is left to do")
    signer = signing_keys.signer(job.tenant_id)
    digest, entries = hashlib.sha256(), 0
    for text in _lines(job):
        digest.update(text)
        entries += 1
    head: dict[str, Any] = {
        "job": job.pk,
        "tenant": job.tenant.name,
        "type": Type(job.type).name,
        "root": _root(job),
        "finished_at": job.finished_at.isoformat().replace("+00:00", "Z"),
        "entries": entries,
        "sha256": digest.hexdigest(),
        "key": signer.name,
        "algorithm": "Ed25519",
    }
    head["signature"] = signer.sign(signed_part(head))
    return _streamed(line(head), job)


def _streamed(head: bytes, job: Job) -> Iterator[bytes]:
    """A second pass: what was hashed is not kept."""
    piece = bytearray(head)
    for text in _lines(job):
        piece += text
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _lines(job: Job) -> Iterator[bytes]:
    last = -1
    while rows := list(
        Element.objects.filter(job_id=job.pk, number__gt=last)
        .order_by("number")
        .values_list(*_COLUMNS)[:_AT_ONCE]
    ):
        release()  # whoever waits for a client holds no connection
        last = rows[-1][0]
        yield from map(_line, rows)


def _line(row: tuple[Any, ...]) -> bytes:
    number, kind, src, dst, escaped, size, mtime, checksum, status, attempts = row
    fields: dict[str, Any] = {
        "path": dst if dst is not None and kind in (Type.COPY, Type.RENAME) else src,
        "size": size,
        "checksum": checksum or None,
        "mtime": mtime,
        "type": Type(kind).name,
        "status": Status(status).name,
        "element": number,
        "attempt": attempts,
    }
    if escaped:
        fields["escaped"] = True
    return line(fields)


def _root(job: Job) -> str:
    """What the paths of a copied tree begin with; the folder of the file where it was a single one."""
    if job.type != Type.COPY or job.dst_filepath is None:
        return job.src_filepath
    root = job.dst_filepath.rstrip("/") or "/"
    alone = Element.objects.filter(job_id=job.pk, number=1).values_list("dst_filepath", flat=True).first()
    if alone == root:
        return root.rpartition("/")[0] or ("/" if root.startswith("/") else "")
    return root
