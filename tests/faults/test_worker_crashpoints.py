"""Fault 4: the worker dies before and after each commit and each external effect, and is started again.

Each step of ``workers.vocabulary.crashpoints.STEPS`` belongs to at least one of the stories in
``crash_stories``, which makes the worker come by there. Afterwards: one execution per attempt, the right
result, nothing left. A few steps are tested at once, each on a node of its own: most of the time is spent
waiting.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.faults.crash_stories import ALONE, TOGETHER, Case, Stage, names_of, play
from tests.support.cluster import Cluster
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, open_ledger
from workers.vocabulary.crashpoints import STEPS

#: Cases that run at the same time.
_AT_ONCE = 4
GROUPS = [TOGETHER[start : start + _AT_ONCE] for start in range(0, len(TOGETHER), _AT_ONCE)]
#: The group in which somebody must find and kill what a dead worker left: without root other processes, too.
_SWEPT = next(group for group in GROUPS if any(step.endswith("orphan_kill") for step, _ in group))


def test_every_step_has_a_story() -> None:
    """Catches a step that was added to the worker and never tested."""
    assert {step for step, _ in (*TOGETHER, *ALONE)} == set(STEPS)


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(group, marks=pytest.mark.account if group is _SWEPT else (), id=names_of(group))
        for group in [*GROUPS, *([case] for case in ALONE)]
    ],
)
def test_the_worker_dies_at(
    cluster: Cluster, account: Account, shared_folder: Path, group: list[Case]
) -> None:
    """Catches whatever is done twice, or not at all, because a worker died between two effects."""
    ledger = open_ledger(shared_folder)
    # Restarts under load take seconds: no guard and no reconciler may step in meanwhile.
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    play(group, partial(Stage, cluster, account.tenant_id, ledger))
    assert_invariants(cluster)
