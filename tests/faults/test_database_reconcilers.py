"""Fault 21: several reconcilers at once. One works at a time; two would do no harm, which is shown here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from pytest_django.fixtures import Settings

from tests.support.cluster import Cluster
from tests.support.engine import submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, begins, ledger_command, open_ledger
from tests.support.waiting import limit, wait_until
from workers.models import Attempt, Node, Run, RunEvent
from workers.runs import losses, transitions
from workers.upkeep.reconciler import reconcile_once
from workers.vocabulary.states import FINAL, Reason, State


def _at_once(work: Callable[[], int], times: int) -> list[int]:
    """What ``times`` threads return that do the same thing at the same moment, each on its own connection."""
    barrier = threading.Barrier(times)

    def one(_: int) -> int:
        try:
            barrier.wait(limit(60))
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))


def _expire() -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        return len(transitions.expire(cursor, 500, by="reconciler"))


def test_expiring_at_once_without_the_lock(cluster: Cluster, account: Account) -> None:
    """Catches a run that is expired twice when two reconcilers see it: an event and a callback too many."""
    ids = [submit(account.tenant_id, "true", expires_in_s=0) for _ in range(120)]
    done = _at_once(_expire, 6)
    assert sum(done) == len(ids), f"expired {done}"
    assert Run.objects.filter(state=State.FAILED, reason=Reason.EXPIRED).count() == len(ids)
    assert RunEvent.objects.count() == len(ids)
    assert_invariants(cluster)


def _claimed_by_a_node_that_is_gone(account: Account, count: int, retries: int) -> Node:
    """A node with running work whose worker was never heard again; this test claims as that worker would."""
    room = {
        "cpu_m_total": 64_000,
        "cpu_m_configured": 64_000,
        "mem_mb_total": 8192,
        "mem_mb_configured": 8192,
    }
    node = Node.objects.create(name="gone", detached=False, runtimes=["process"], isolates_users=True, **room)
    ids = [submit(account.tenant_id, "true", retries=retries) for _ in range(count)]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM workers_node WHERE id = %s FOR UPDATE", [node.pk])
        assert len(transitions.claim(cursor, node.pk, node.name, ids)) == count
        cursor.execute(
            "UPDATE workers_node SET heartbeat_at = now() - interval '1 day' WHERE id = %s", [node.pk]
        )
    return node


def test_closing_a_lost_node_at_once_without_the_lock(cluster: Cluster, account: Account) -> None:
    """Catches an attempt closed twice: two tries used up, resources freed twice (the schema would refuse)."""
    node = _claimed_by_a_node_that_is_gone(account, 60, retries=1)
    _at_once(lambda: losses.close_node(node.pk, "node gone has been silent", removed=False), 6)
    assert set(Run.objects.values_list("state", "retries_left")) == {(State.PENDING, 0)}
    assert list(Attempt.objects.values_list("state", flat=True)) == [State.FAILED] * 60
    assert RunEvent.objects.filter(from_state=State.RUNNING).count() == 60
    node.refresh_from_db()
    assert (node.cpu_m_used, node.mem_mb_used, node.slots_used) == (0, 0, 0)
    with transaction.atomic(), connection.cursor() as cursor:
        transitions.cancel(cursor, list(Run.objects.values_list("id", flat=True)), by="test", operator=False)
    assert_invariants(cluster)


def test_whole_rounds_at_once(cluster: Cluster, account: Account, settings: Settings) -> None:
    """Catches rounds that wait for each other for ever, and work that each leaves to the others."""
    settings.GANTRY_HEARTBEAT_S = 0.1  # how soon a silence is believed depends on it
    _claimed_by_a_node_that_is_gone(account, 20, retries=0)
    for _ in range(60):
        submit(account.tenant_id, "true", expires_in_s=0)

    def rounds() -> int:
        return sum(sum(reconcile_once().values()) for _ in range(10))

    def all_done() -> bool:
        _at_once(rounds, 4)
        return not Run.objects.exclude(state__in=FINAL).exists()

    wait_until(all_done, why="nothing is left to the other reconciler")
    assert RunEvent.objects.filter(to_state=State.FAILED).count() == 80
    assert_invariants(cluster)


def test_five_nodes_reconcile(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches the same between real workers: what expires ends once, what was lost is tried once more."""
    # Six workers that start at once beat late on a busy machine: only who is killed may be lost.
    cluster.env |= {"GANTRY_NODE_LOST_AFTER_S": "18", "GANTRY_GUARD_MARGIN_S": "6"}
    ledger = open_ledger(shared_folder)
    eager: dict[str, Any] = {"GANTRY_RECONCILE_S": "0.05"}
    lost = cluster.node("n0", attributes="rack_id=r0", **eager)
    moved = [
        submit(
            account.tenant_id,
            ledger_command(ledger, f"m{n}", f"mkdir {shared_folder}/m{n} 2>/dev/null && sleep 600"),
            constraints={"rack_id": ["r0", "r1"]},
            retries=1,
        )
        for n in range(5)
    ]
    for run_id in moved:
        wait_started(run_id)
    lost.kill()  # its launcher lives on, and ends the commands before anybody else may have them
    for n in range(1, 6):
        cluster.node(f"n{n}", attributes=f"rack_id=r{n}", wait=False, **eager)
    expiring = [
        submit(account.tenant_id, "true", constraints={"rack_id": ["r9"]}, expires_in_s=1 + n % 3)
        for n in range(100)
    ]
    wait_until(lambda: Node.objects.filter(detached=False).count() == 6, 120, why="all nodes register")
    wait_final(*expiring)
    wait_final(*moved)
    assert Run.objects.filter(pk__in=expiring, reason=Reason.EXPIRED, attempt=0).count() == len(expiring)
    assert RunEvent.objects.filter(run_id__in=expiring).count() == len(expiring)
    assert Run.objects.filter(pk__in=moved, state=State.SUCCEEDED, attempt=2).count() == len(moved)
    assert Attempt.objects.filter(run_id__in=moved, reason=Reason.UNREACHABLE).count() == len(moved)
    assert RunEvent.objects.filter(run_id__in=moved).count() == 4 * len(moved)
    assert begins(ledger) == {f"m{n}": 2 for n in range(5)}
    cluster.node("n0", attributes="rack_id=r0", **eager)  # it clears up what its guard has killed
    assert_invariants(cluster)
