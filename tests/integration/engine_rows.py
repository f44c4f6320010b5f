"""The engine's rows for tests of the state machine, moved by the transitions alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from workers.models import Node, Run, RunEvent, Shape, Tenant
from workers.runs import running, transitions
from workers.vocabulary.leases import ClaimedRun, Lease, NewRun, Outcome
from workers.vocabulary.states import Reason, State

T = TypeVar("T")

#: What a transition could touch.
TABLES = ("workers_run", "workers_attempt", "workers_runevent", "workers_node", "workers_shape")


@contextlib.contextmanager
def cursor() -> Iterator[CursorWrapper]:
    """One transaction, like one of a worker's."""
    with transaction.atomic(), connection.cursor() as opened:
        yield opened


@dataclass
class World:
    """A tenant and its shape, nodes by name, and short forms of every transition."""

    cpu_m: int = 1000
    mem_mb: int = 100
    tenant: Tenant = field(init=False)
    shape: Shape = field(init=False)

    def __post_init__(self) -> None:
        self.tenant, _ = Tenant.objects.get_or_create(
            name="default", defaults={"trusted_with_worker_account": True}
        )
        self.shape = self.add_shape(self.tenant, cpu_m=self.cpu_m, mem_mb=self.mem_mb)

    @staticmethod
    def add_shape(tenant: Tenant, **given: Any) -> Shape:
        shape, _ = Shape.objects.get_or_create(
            tenant=tenant, **{"kind": "process", "constraints": {}, **given}
        )
        return shape

    @staticmethod
    def node(name: str = "n1", *, cpu_m: int = 8000, mem_mb: int = 16_384, **given: Any) -> Node:
        """A ready node with a worker that has just been heard."""
        return Node.objects.create(
            **{
                "name": name,
                "detached": False,
                "incarnation": 1,
                "runtimes": ["process"],
                "isolates_users": True,
                "attributes": {"hostname": "h", "rack_id": f"r-{name}"},
                "cpu_m_configured": cpu_m,
                "cpu_m_total": cpu_m,
                "mem_mb_configured": mem_mb,
                "mem_mb_total": mem_mb,
                **given,
            }
        )

    def submit(self, *, shape: Shape | None = None, **given: Any) -> int:
        """Submit one run; ``given`` replaces fields of NewRun."""
        shape = shape or self.shape
        new = {
            "tenant_id": shape.tenant_id,
            "family": "tasks",
            "kind": "process",
            "name": "test",
            "owner_id": "",
            "shape_id": shape.pk,
            "spec": '{"kind": "process", "argv": ["true"]}',
            "priority": 5,
            "retries": 0,
            "timeout_s": None,
            "grace_s": 10,
            "expires_in_s": 86_400,
            "callback_url": "",
            "retry_of": None,
            **given,
        }
        with cursor() as opened:
            return transitions.submit(opened, NewRun(**new))[0]

    @staticmethod
    def claim(node: Node, *run_ids: int) -> list[ClaimedRun]:
        with cursor() as opened:
            return transitions.claim(opened, node.pk, node.name, run_ids)

    def claimed(self, node: Node, **given: Any) -> Lease:
        """Submit a run and let the node claim it."""
        (run,) = self.claim(node, self.submit(**given))
        return run.lease

    @staticmethod
    def finish(lease: Lease, state: State = State.SUCCEEDED, **facts: Any) -> set[int]:
        with cursor() as opened:
            return transitions.finish(opened, [Outcome(lease, state, **facts)], by="n1")

    @staticmethod
    def retry(lease: Lease, **facts: Any) -> set[int]:
        given = {"reason": Reason.EXIT_CODE, "backoff_s": 30.0, **facts}
        with cursor() as opened:
            return transitions.retry(opened, [Outcome(lease, State.FAILED, **given)], by="n1")

    @staticmethod
    def release(lease: Lease, **facts: Any) -> set[int]:
        given = {"reason": Reason.DROPPED, **facts}
        with cursor() as opened:
            return transitions.release(opened, [Outcome(lease, State.FAILED, **given)], by="n1")

    @staticmethod
    def cancel(*run_ids: int, operator: bool = False) -> set[int]:
        with cursor() as opened:
            return transitions.cancel(opened, run_ids, by="client", operator=operator)

    @staticmethod
    def request_cancel(*run_ids: int, operator: bool = False) -> set[int]:
        with cursor() as opened:
            return transitions.request_cancel(opened, run_ids, operator=operator)

    @staticmethod
    def expire(limit: int = 100) -> set[int]:
        with cursor() as opened:
            return transitions.expire(opened, limit, by="reconciler")

    @staticmethod
    def reject(*run_ids: int) -> set[int]:
        with cursor() as opened:
            return transitions.reject(opened, run_ids, "commands are not allowed any more", by="n1")

    @staticmethod
    def adopt(node: Node, *run_ids: int, crashed: bool = False) -> list[ClaimedRun]:
        """Every run of the node when none is named."""
        with cursor() as opened:
            return transitions.adopt(opened, node.pk, run_ids or None, crashed=crashed)

    @staticmethod
    def renew(*leases: Lease) -> set[int]:
        with cursor() as opened:
            return running.renew(opened, leases)

    @staticmethod
    def held(*leases: Lease) -> set[int]:
        with cursor() as opened:
            return running.held(opened, leases)

    @staticmethod
    def may_start(*leases: Lease) -> set[int]:
        with cursor() as opened:
            answers = running.may_start(opened, leases)
        return {lease.run_id for lease, by_operator in answers.items() if by_operator is None}

    @staticmethod
    def started(*leases: Lease, ago: float = 1.5, message: str = "Command is running") -> set[int]:
        with cursor() as opened:
            return running.started(opened, [(lease, ago, message) for lease in leases])


def snapshot() -> dict[str, list[Any]]:
    """Every row of every table that a transition could touch."""
    found = {}
    with connection.cursor() as opened:
        for name in TABLES:
            opened.execute(f"SELECT to_jsonb(t) FROM {name} t ORDER BY id")
            found[name] = [row[0] for row in opened.fetchall()]
    return found


def assert_books_balance() -> None:
    """A node's used columns are the sum over its running runs, and never more than it has."""
    with connection.cursor() as opened:
        opened.execute(BOOKS)
        for name, cpu_m, cpu_used, cpu_sum, mem_mb, mem_used, mem_sum, slots_used, runs in opened.fetchall():
            assert (cpu_used, mem_used, slots_used) == (cpu_sum, mem_sum, runs), f"books of {name}"
            assert cpu_sum <= cpu_m, f"{name}: {cpu_sum} of {cpu_m} thousandths of a CPU are reserved"
            assert mem_sum <= mem_mb, f"{name}: {mem_sum} of {mem_mb} MiB are reserved"


#: Per node: what it has, what its columns say is used, and what its running runs add up to. One statement,
#: so that it is the truth of one moment.
BOOKS = """
    SELECT n.name, n.cpu_m_total, n.cpu_m_used, coalesce(sum(s.cpu_m), 0)::bigint,
        n.mem_mb_total, n.mem_mb_used, coalesce(sum(s.mem_mb), 0)::bigint, n.slots_used, count(r.id)
    FROM workers_node n LEFT JOIN workers_run r ON r.node_id = n.id AND r.state = 'RUNNING'
    LEFT JOIN workers_shape s ON s.id = r.shape_id GROUP BY n.id
"""


def together(*work: Callable[[], T], timeout_s: float = 150.0) -> list[T]:
    """Run functions at the same moment, each in a thread of its own; their results in order."""
    gate = threading.Barrier(len(work))
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(number: int, function: Callable[[], T]) -> None:
        try:
            gate.wait(timeout_s)
            results[number] = function()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout_s)
        assert not thread.is_alive(), "a thread did not end"
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(work))]


def row(run_id: int) -> Run:
    return Run.objects.get(pk=run_id)


def events(run_id: int) -> list[tuple[str, str, str, int, str]]:
    rows = RunEvent.objects.filter(run_id=run_id).order_by("id")
    return [(item.from_state, item.to_state, item.reason, item.attempt, item.by) for item in rows]
