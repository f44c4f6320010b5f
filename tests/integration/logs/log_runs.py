"""Runs with output, made the way the engine makes them: submit, claim, ship, finish."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from django.db import connection, transaction

from workers import services
from workers.logs import store
from workers.models import Node, Run, Tenant
from workers.runs import transitions
from workers.vocabulary.leases import Lease, Outcome
from workers.vocabulary.specs import ProcessSpec
from workers.vocabulary.states import Reason, State

STDOUT, STDERR = 1, 2
_numbers = count(1)


@dataclass
class LoggedRun:
    """A run of this test, with verbs for what happens to it."""

    id: int
    node: Node
    epoch: int = 0
    attempt: int = 0

    @property
    def row(self) -> Run:
        return Run.objects.get(pk=self.id)

    @property
    def lease(self) -> Lease:
        return Lease(self.id, self.attempt, self.epoch)

    def claim(self) -> LoggedRun:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("UPDATE workers_run SET not_before = NULL WHERE id = %s", [self.id])
            (claimed,) = transitions.claim(cursor, self.node.pk, self.node.name, [self.id])
        self.attempt, self.epoch = claimed.lease.attempt, claimed.lease.epoch
        return self

    def write(self, data: bytes, offset: int, stream: int = STDOUT) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            store.insert(cursor, [(self.id, self.attempt, stream, offset, data)])

    def finish(
        self, state: State = State.SUCCEEDED, reason: Reason = Reason.NONE, code: int | None = 0
    ) -> None:
        outcome = Outcome(self.lease, state, reason, exit_code=code, started_ago=1.0)
        with transaction.atomic(), connection.cursor() as cursor:
            assert transitions.finish(cursor, [outcome], by="test") == {self.id}

    def try_again(self, code: int = 1) -> None:
        outcome = Outcome(self.lease, State.FAILED, Reason.EXIT_CODE, exit_code=code, started_ago=1.0)
        with transaction.atomic(), connection.cursor() as cursor:
            assert transitions.retry(cursor, [outcome], by="test") == {self.id}


def submitted(*, retries: int = 0, head: int = 1024, tail: int = 1024) -> LoggedRun:
    """A run that waits, and a node that could take it."""
    tenant, _ = Tenant.objects.get_or_create(name="log-tests")
    node, _ = Node.objects.get_or_create(
        name="log-node",
        defaults={
            "cpu_m_configured": 64_000,
            "mem_mb_configured": 64_000,
            "cpu_m_total": 64_000,
            "mem_mb_total": 64_000,
        },
    )
    spec = ProcessSpec(argv=["true"], cpu_m=100, mem_mb=16, log_head=head, log_tail=tail)
    submission = services.Submission(
        tenant_id=tenant.pk, family="tasks", spec=spec, name=f"log {next(_numbers)}", retries=retries
    )
    return LoggedRun(services.submit(submission), node)


def running(*, retries: int = 0) -> LoggedRun:
    """A run whose first attempt runs."""
    return submitted(retries=retries).claim()
