"""Fault 7: Redis killed and flushed with 1,000 runs waiting. Fault 9: Redis restarted again and again.

Runs live in the database, messages only wake: nothing may be lost, doubled or stuck when the broker forgets.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.engine import submit, wait_final
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, assert_once, assert_truth, ledger_command, open_ledger
from tests.support.outages import (
    flush_redis,
    redis_down,
    restart_redis,
    wait_broker_trusted,
    wait_broker_used,
)
from tests.support.waiting import wait_until
from workers.models import Attempt, Run
from workers.vocabulary.states import FINAL, State


def _ended() -> int:
    return Run.objects.filter(state__in=FINAL).count()


def _submit_many(account: Account, ledger: Path, count: int) -> dict[str, int]:
    return {f"r{n}": submit(account.tenant_id, ledger_command(ledger, f"r{n}")) for n in range(count)}


def _assert_each_once(ledger: Path, names: dict[str, int]) -> None:
    assert Run.objects.filter(pk__in=names.values(), state=State.SUCCEEDED).count() == len(names)
    assert Attempt.objects.filter(run_id__in=names.values()).count() == len(names), "a run was tried twice"
    assert_once(ledger, names)
    for name in list(names)[:: max(1, len(names) // 20)]:
        assert_truth(ledger, name, names[name])


def test_redis_killed_and_flushed_with_a_thousand_waiting(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a run whose only trace was a message: it would wait for ever, or come twice."""
    ledger = open_ledger(shared_folder)
    names = _submit_many(account, ledger, 1000)
    cluster.node()
    wait_until(lambda: _ended() > 50, why="runs flow")
    for _ in range(10):
        flush_redis()
    before = _ended()
    assert before < 900, "the fault came too late to prove anything"
    with redis_down():
        wait_until(lambda: _ended() > min(before + 150, 950), 60, why="runs flow without Redis")

    def flushed_until_nearly_all_ended() -> bool:
        flush_redis()
        return _ended() > 960

    wait_until(flushed_until_nearly_all_ended, 90, 0.1, "runs flow while Redis is flushed")
    wait_final(*names.values(), timeout_s=90)
    _assert_each_once(ledger, names)
    wait_broker_used(account.tenant_id)
    assert_invariants(cluster)


def _restarts(cluster: Cluster, account: Account, folder: Path, times: int) -> None:
    ledger = open_ledger(folder)
    cluster.node()
    names: dict[str, int] = {}
    for turn in range(times):
        for n in range(30):
            name = f"r{turn}x{n}"
            names[name] = submit(account.tenant_id, ledger_command(ledger, name, "sleep 0.2"))
        wait_until(lambda: _ended() > 30 * turn, why="runs flow")  # noqa: B023
        restart_redis(down_s=0.3 * (turn % 3))
        if turn % 2:
            wait_broker_trusted()
    wait_final(*names.values(), timeout_s=120)
    _assert_each_once(ledger, names)
    wait_broker_used(account.tenant_id)
    assert_invariants(cluster)


def test_redis_restarted_while_runs_flow(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches a worker that ends with its broker connection, or is up and does not consume afterwards."""
    _restarts(cluster, account, shared_folder, 5)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_redis_restarted_twenty_times(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """The same 20 times."""
    _restarts(cluster, account, shared_folder, 20)
