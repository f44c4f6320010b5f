"""Fault 1 and 4 for containers: the worker dies before and after each commit and each effect on the engine.

Several nodes play at the same time on one engine: each may touch its own containers only.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.faults.crash_stories import Case, Stage, Story, ordinary, out_of_time, retried, stopped
from tests.support.cluster import Cluster, Process, wait_until
from tests.support.containers import container_of, containers_of, submit_container
from tests.support.engine import run, wait_started
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, ledger_command, open_ledger
from workers import services
from workers.models import Node
from workers.states import Reason, State

_AT_ONCE = 4


@dataclass
class BoxStage(Stage):
    """A stage whose runs are containers of one engine."""

    engine: Engine

    def start(self, **env: str) -> Process:
        return super().start(**self.engine.env, **env)

    def submit(self, name: str, body: str = "sleep 0.7", code: int = 0, **more: Any) -> int:
        return submit_container(
            self.tenant_id,
            ledger_command(self.ledger, f"{self.node}-{name}", body, code),
            share=self.ledger.parent,
            constraints={"rack_id": [self.node]},
            **more,
        )


def cancelled(stage: Stage) -> None:
    """A container that runs is cancelled."""
    worker = stage.crashing()
    run_id = stage.submit("a", "sleep 60")
    wait_started(run_id)
    assert services.cancel(stage.tenant_id, run_id).accepted
    stage.died(worker)
    stage.start()
    stage.ended(run_id, state=State.CANCELLED, message="Container was killed by request", attempt=1)
    stage.once(a=run_id)


def taken_over(stage: Stage) -> None:
    """The worker dies while it takes over what the one before left."""
    assert isinstance(stage, BoxStage)
    first = stage.start()
    gate = stage.ledger.with_name(f"{stage.node}.gate")
    gate.touch()
    run_id = stage.submit("a", f"while test -e {gate}; do sleep 0.05; done", code=3)
    wait_started(run_id)
    box = container_of(stage.engine, run_id)["Id"]
    first.kill()
    stage.died(stage.crashing())
    stage.start()
    wait_until(lambda: run(run_id).lease_epoch > 1, why="it is adopted")
    assert container_of(stage.engine, run_id)["Id"] == box, "another container runs in its place"
    gate.unlink()
    stage.ended(run_id, attempt=1)
    stage.once(a=run_id)
    stage.truth("a", run_id, 3)


def swept(stage: Stage) -> None:
    """A worker finds a container running that nobody owns."""
    assert isinstance(stage, BoxStage)
    first = stage.start()
    run_id = stage.submit("a", "sleep 60")
    wait_started(run_id)
    first.kill()
    services.remove_node(stage.node, force=True)
    services.set_node_mode(stage.node, Node.Mode.READY, force=True)
    assert container_of(stage.engine, run_id)["State"]["Running"], "it died with its worker"
    stage.died(stage.crashing())
    stage.start()
    wait_until(lambda: not containers_of(stage.engine, run_id), 40, why="the orphan is removed")
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


def _name(case: Case) -> str:
    step, story = case
    return f"{step}-{story.__name__}"


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: "+".join(_name(case) for case in group))
def test_the_worker_dies_at(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, group: list[Case]
) -> None:
    """Catches whatever is done twice, or not at all, because a worker died between two effects."""
    ledger = open_ledger(shared_folder)
    # Restarts under load take seconds: no guard and no reconciler may step in meanwhile.
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"

    def play(number: int, case: Case) -> None:
        step, story = case
        try:
            story(BoxStage(cluster, account.tenant_id, ledger, step, f"n{number}", engine))
        except AssertionError as error:
            raise AssertionError(f"{_name(case)}: {error}") from error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(group)) as pool:
        for played in [pool.submit(play, number, case) for number, case in enumerate(group)]:
            played.result()
    assert_invariants(cluster, engines=[engine])
