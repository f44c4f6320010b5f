"""Fault 1 and 4 for containers: the worker dies before and after each commit and each effect on the engine.

Several nodes play at the same time on one engine: each may touch its own containers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.faults.crash_stories import (
    Case,
    Stage,
    Story,
    cancelled,
    names_of,
    ordinary,
    out_of_time,
    play,
    retried,
    stopped,
    taken_over,
)
from tests.support.cluster import Cluster, Process
from tests.support.containers import container_of, containers_of, submit_container
from tests.support.engine import wait_started
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, ledger_command, open_ledger
from tests.support.waiting import wait_until
from workers import services
from workers.models import Node
from workers.vocabulary.states import Reason

_AT_ONCE = 4


@dataclass
class BoxStage(Stage):
    """A stage whose runs are containers of one engine."""

    noun: ClassVar[str] = "Container"

    engine: Engine

    def start(self, **env: str) -> Process:
        return super().start(**self.engine.env, **env)

    def submit(self, name: str, body: str = "sleep 2", code: int = 0, **more: Any) -> int:
        return submit_container(
            self.tenant_id,
            ledger_command(self.ledger, f"{self.node}-{name}", body, code),
            share=self.ledger.parent,
            constraints={"rack_id": [self.node]},
            **more,
        )

    def identity(self, run_id: int) -> int | str:
        return str(container_of(self.engine, run_id)["Id"])


def swept(stage: Stage) -> None:
    """A worker finds a container running that nobody owns."""
    assert isinstance(stage, BoxStage)
    first = stage.start()
    run_id = stage.submit("a", "sleep 600")
    wait_started(run_id)
    stage.begun("a")
    first.kill()
    services.remove_node(stage.node, force=True)
    services.set_node_mode(stage.node, Node.Mode.READY, force=True)
    assert container_of(stage.engine, run_id)["State"]["Running"], "it died with its worker"
    stage.died(stage.crashing())
    stage.start()
    wait_until(lambda: not containers_of(stage.engine, run_id), 90, why="the orphan is removed")
    stage.ended(run_id, reason=Reason.NODE_GONE, attempt=1)
    stage.once(a=run_id)


_ORDINARY = (
    "agent.after_claim",
    "runner.before_prepare",
    "runner.after_prepare",
    "runner.before_start",
    "runner.after_start",
    "runner.before_started_commit",
    "runner.after_started_commit",
    "runner.before_log_commit",
    "runner.after_log_commit",
    "runner.after_exit",
    "runner.before_finish_commit",
    "runner.after_finish_commit",
    "runner.during_cleanup",
    "runner.after_cleanup",
)
_OTHERS: dict[str, Story] = {
    "agent.before_adopt_commit": taken_over,
    "agent.after_adopt_commit": taken_over,
    "agent.before_orphan_kill": swept,
    "agent.after_orphan_kill": swept,
    "agent.after_goodbye": stopped,
    "agent.before_stop": cancelled,
    "agent.after_stop": cancelled,
    "runner.before_stop": out_of_time,
    "runner.after_stop": out_of_time,
}
CASES: list[Case] = [
    *((step, ordinary) for step in _ORDINARY),
    *_OTHERS.items(),
    ("runner.after_finish_commit", retried),
    ("runner.after_exit", cancelled),
]
GROUPS = [CASES[start : start + _AT_ONCE] for start in range(0, len(CASES), _AT_ONCE)]


@pytest.mark.parametrize("group", GROUPS, ids=names_of)
def test_the_worker_dies_at(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, group: list[Case]
) -> None:
    """Catches whatever is done twice, or not at all, because a worker died between two effects."""
    ledger = open_ledger(shared_folder)
    # Restarts under load take seconds: no guard and no reconciler may step in meanwhile.
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    play(group, lambda step, node: BoxStage(cluster, account.tenant_id, ledger, step, node, engine))
    assert_invariants(cluster, engines=[engine])
