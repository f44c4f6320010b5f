"""Fault 23: a crowd of runs over five tenants, one of which has a slow class of runs and was there first.

The bound: as long as everybody has something waiting, the slow one holds no more than its fair share of the
node, rounded up, and no less than half of it. So slow runs delay others by their share, not by their number.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.engine import submit, wait_final
from tests.support.fixtures import make_account
from tests.support.invariants import assert_invariants, begins, open_ledger
from workers.models import Attempt, Run, RunEvent
from workers.vocabulary.states import State

#: Runs of 0.1 CPU that the node holds at once.
PLACES = 16
FAST = ("quick-a", "quick-b", "quick-c", "quick-d")


@dataclass(frozen=True)
class Stay:
    """An attempt on the node; times are seconds of the database's clock."""

    run_id: int
    tenant: str
    claimed: float
    finished: float


def _stays() -> list[Stay]:
    rows = Attempt.objects.order_by("claimed_at").values_list(
        "run_id", "run__tenant__name", "claimed_at", "finished_at"
    )
    assert all(row[-1] is not None for row in rows)
    return [
        Stay(run_id, name, claimed.timestamp(), finished.timestamp())
        for run_id, name, claimed, finished in rows
        if finished
    ]


def _contested(stays: list[Stay]) -> tuple[float, float]:
    """From when the node is full for the first time until one of the tenants has nothing waiting any more."""
    last = {stay.tenant: stay.claimed for stay in stays}
    return stays[PLACES - 1].claimed, min(last.values())


def _assert_fair(stays: list[Stay]) -> None:
    begin, end = _contested(stays)
    tenants = len({stay.tenant for stay in stays})
    fair = math.ceil(PLACES / tenants)
    assert end - begin > 1, "the tenants met too shortly to prove anything"
    # In the order of what was written, under the node's lock: times are those at which transactions began.
    claimed = {stay.run_id: stay.claimed for stay in stays if stay.tenant == "slow"}
    held = 0
    for event in RunEvent.objects.filter(run_id__in=claimed).order_by("id"):
        held += 1 if event.to_state == State.RUNNING else -1
        if event.to_state == State.RUNNING and begin <= claimed[event.run_id] < end:
            assert held <= fair, f"the slow tenant holds {held} of {PLACES} places, a fair share is {fair}"
    slow = [stay for stay in stays if stay.tenant == "slow"]
    used = sum(max(0.0, min(stay.finished, end) - max(stay.claimed, begin)) for stay in slow) / (end - begin)
    assert used > PLACES / tenants / 2, f"the slow tenant held {used:.1f} places on average: it starves"
    claims = Counter(stay.tenant for stay in stays if stay.claimed <= end)
    least, most = min(claims[name] for name in FAST), max(claims[name] for name in FAST)
    assert least > 0.7 * most, f"tenants with equal work are served unequally: {claims}"


def _crowd(cluster: Cluster, folder: Path, each: int) -> None:
    ledger = open_ledger(folder)
    names: dict[str, int] = {}
    for tenant in ("slow", *FAST):
        account = make_account(tenant, trusted=True)
        for n in range(each):
            command = f"echo begin {tenant}{n} >> {ledger}; {'sleep 0.5' if tenant == 'slow' else ':'}"
            names[f"{tenant}{n}"] = submit(account.tenant_id, command)
    cluster.node(cpus=PLACES / 10)
    wait_final(*names.values(), timeout_s=300 + each * 0.3)
    assert Run.objects.filter(state=State.SUCCEEDED, attempt=1).count() == len(names)
    assert begins(ledger) == dict.fromkeys(names, 1)
    _assert_fair(_stays())
    assert_invariants(cluster)


def test_a_slow_class_among_five_hundred_runs(cluster: Cluster, shared_folder: Path) -> None:
    """Catches places given by age or by demand: the slow runs, first in line, would fill the node."""
    _crowd(cluster, shared_folder, 100)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_slow_class_among_ten_thousand_runs(cluster: Cluster, shared_folder: Path) -> None:
    """The same with 10,000."""
    _crowd(cluster, shared_folder, 2000)
