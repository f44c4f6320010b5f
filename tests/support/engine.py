"""Short forms for tests: submit a command, wait for an end, read its log."""

from __future__ import annotations

from typing import Any

from django.db import connection, transaction

from tests.support.waiting import wait_until
from workers import services
from workers.models import LogChunk, Run
from workers.runs import transitions
from workers.vocabulary.specs import ProcessSpec
from workers.vocabulary.states import FINAL


def submit(
    tenant_id: int,
    command: str,
    *,
    cpu: float = 0.1,
    mem_mb: int = 32,
    constraints: dict[str, list[str]] | None = None,
    **more: Any,
) -> int:
    """Submit a shell command as a run of the tasks family; returns its id."""
    env = more.pop("env", {})
    spec = ProcessSpec(argv=["/bin/sh", "-c", command], cpu_m=int(cpu * 1000), mem_mb=mem_mb, env=env)
    more.setdefault("name", "test")
    return services.submit(
        services.Submission(
            tenant_id=tenant_id, family="tasks", spec=spec, constraints=constraints or {}, **more
        )
    )


def cancel_unheard(run_id: int, *, operator: bool = False) -> None:
    """A cancel of a claimed run that is accepted, and its API process dies before it rings.

    The run's node does not hear of it until it looks by itself.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        assert transitions.request_cancel(cursor, [run_id], operator=operator) == {run_id}


def run(run_id: int) -> Run:
    return Run.objects.get(pk=run_id)


def wait_final(*run_ids: int, timeout_s: float = 90.0) -> list[Run]:
    """Wait until all of these runs have ended; returns them in the order asked."""
    wait_until(
        lambda: Run.objects.filter(pk__in=run_ids, state__in=FINAL).count() == len(set(run_ids)),
        timeout_s,
        why=f"{len(set(run_ids))} runs end",
        see=lambda: [found for found in states(*run_ids) if found[1] not in FINAL],
    )
    return [run(run_id) for run_id in run_ids]


def wait_started(run_id: int, timeout_s: float = 90.0) -> Run:
    """Wait until a run's command is recorded as started."""
    wait_until(
        lambda: run(run_id).started_at is not None,
        timeout_s,
        why=f"run {run_id} starts",
        see=lambda: states(run_id),
    )
    return run(run_id)


def states(*run_ids: int) -> list[tuple[int, str, str, str, int, int]]:
    """(id, state, reason, message, attempt, lease's epoch) of each."""
    fields = ("id", "state", "reason", "message", "attempt", "lease_epoch")
    return list(Run.objects.filter(pk__in=run_ids).order_by("id").values_list(*fields))


def output(run_id: int, attempt: int | None = None, stream: int = 1) -> bytes:
    """The stored output of an attempt (the last one by default)."""
    number = attempt or run(run_id).attempt
    chunks = LogChunk.objects.filter(run_id=run_id, attempt=number, stream=stream).order_by("offset")
    return b"".join(bytes(chunk.data) for chunk in chunks)
