"""Stories of crash points: what a worker does until it dies at a step, and what must be true then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from django.db import connection

from tests.support.cluster import Cluster, Process
from tests.support.engine import run, submit, wait_final, wait_started
from tests.support.invariants import assert_once, assert_truth, ledger_command
from tests.support.ledger import wait_begun
from tests.support.machine import alive, kill, launcher_pid, started, wait_dead
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt, Node
from workers.vocabulary.crashpoints import STEPS
from workers.vocabulary.states import Reason, State

#: Longer than what the runner tells in one go, so that start and first output are commits of their own.
_A_WHILE = "sleep 2"


@dataclass
class Stage:
    """What a story plays with: a node of its own in a cluster that others play in, too."""

    #: How messages call what runs.
    noun: ClassVar[str] = "Command"

    cluster: Cluster
    tenant_id: int
    ledger: Path
    step: str
    node: str

    @property
    def home(self) -> Path:
        return self.cluster.folder / self.node

    def start(self, **env: str) -> Process:
        """A worker that is not waited for."""
        return self.cluster.node(self.node, attributes=f"rack_id={self.node}", wait=False, settings=env)

    def crashing(self) -> Process:
        """A worker that dies at the step, the first time that it comes by."""
        return self.start(GANTRY_CRASH_AT=self.step, GANTRY_CRASH_ONCE=str(self._mark))

    def died(self, worker: Process) -> None:
        wait_dead(worker, 120)
        assert self._mark.exists(), f"it died of something else:\n{worker.text()[-2000:]}"

    @property
    def _mark(self) -> Path:
        return self.cluster.folder / f"{self.node}.crashed"

    def submit(self, name: str, body: str = _A_WHILE, code: int = 0, **more: int) -> int:
        command = ledger_command(self.ledger, f"{self.node}-{name}", body, code)
        return submit(self.tenant_id, command, constraints={"rack_id": [self.node]}, **more)

    def begun(self, name: str) -> None:
        """Wait for its first word: a start is recorded a moment before that."""
        wait_begun(self.ledger, f"{self.node}-{name}")

    def identity(self, run_id: int) -> int | str:
        """What runs for it now: another one would be a second execution."""
        return started(self.home, run_id).shim_pid

    def ended(self, run_id: int, **facts: object) -> None:
        """Wait for the end and compare the run's record with what it must be."""
        (row,) = wait_final(run_id, timeout_s=120)
        found = {name: getattr(row, name) for name in facts}
        assert found == facts, f"run {run_id} should have ended with {facts}: {found}, {row.message}"

    def once(self, **runs: int) -> None:
        assert_once(self.ledger, {f"{self.node}-{name}": run_id for name, run_id in runs.items()})

    def truth(self, name: str, run_id: int, code: int = 0) -> None:
        assert_truth(self.ledger, f"{self.node}-{name}", run_id, code)


Story = Callable[[Stage], None]
Case = tuple[str, Story]


def name_of(case: Case) -> str:
    step, story = case
    return f"{step}-{story.__name__}"


def names_of(group: Sequence[Case]) -> str:
    return "+".join(name_of(case) for case in group)


def play(group: Sequence[Case], stage_of: Callable[[str, str], Stage]) -> None:
    """Play these at the same time, each on the stage that ``stage_of(step, node)`` makes."""

    def one(number: int, case: Case) -> None:
        step, story = case
        try:
            story(stage_of(step, f"n{number}"))
        except AssertionError as error:
            raise AssertionError(f"{name_of(case)}: {error}") from error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(group)) as pool:
        for played in [pool.submit(one, number, case) for number, case in enumerate(group)]:
            played.result()


def ordinary(stage: Stage) -> None:
    """Two commands: one that takes a while, one that is over at once."""
    worker = stage.crashing()
    if stage.step.endswith("_publish"):
        wait_until(lambda: "broker.back" in worker.text() or not worker.alive, why="the broker is used")
    slow, quick = stage.submit("slow", code=3), stage.submit("quick", ":")
    stage.died(worker)
    stage.start()
    stage.ended(slow, attempt=1)
    stage.ended(quick, attempt=1)
    stage.once(slow=slow, quick=quick)
    stage.truth("slow", slow, 3)
    stage.truth("quick", quick)


def retried(stage: Stage) -> None:
    """A command that fails and has another try."""
    worker = stage.crashing()
    run_id = stage.submit("a", code=7, retries=1)
    stage.died(worker)
    stage.start()
    stage.ended(run_id, state=State.FAILED, exit_code=7, attempt=2, retries_left=0)
    stage.once(a=run_id)


def cancelled(stage: Stage) -> None:
    """What runs is cancelled."""
    worker = stage.crashing()
    run_id = stage.submit("a", "sleep 600")
    wait_started(run_id)
    stage.begun("a")
    assert services.cancel(stage.tenant_id, run_id).accepted
    stage.died(worker)
    stage.start()
    stage.ended(run_id, state=State.CANCELLED, message=f"{stage.noun} was killed by request", attempt=1)
    stage.once(a=run_id)


def out_of_time(stage: Stage) -> None:
    """A command that runs into its time limit."""
    worker = stage.crashing()
    run_id = stage.submit("a", "sleep 600", timeout_s=3)
    stage.died(worker)
    stage.start()
    stage.ended(run_id, state=State.FAILED, reason=Reason.TIMEOUT, attempt=1)
    stage.once(a=run_id)


def taken_over(stage: Stage) -> None:
    """The worker dies while it takes over what the one before left."""
    first = stage.start()
    gate = stage.ledger.with_name(f"{stage.node}.gate")
    gate.touch()
    run_id = stage.submit("a", f"while test -e {gate}; do sleep 0.05; done", code=3)
    wait_started(run_id)
    before = stage.identity(run_id)
    first.kill()
    stage.died(stage.crashing())
    stage.start()
    wait_until(lambda: run(run_id).lease_epoch > 1, why="it is adopted")
    assert stage.identity(run_id) == before, "another one runs in its place"
    gate.unlink()
    stage.ended(run_id, attempt=1)
    stage.once(a=run_id)
    stage.truth("a", run_id, 3)


def stopped(stage: Stage) -> None:
    """The worker is asked to end while a command runs."""
    worker = stage.crashing()
    run_id = stage.submit("a", "sleep 1", code=3)
    wait_started(run_id)
    wait_until(lambda: "broker.back" in worker.text(), why="it has started completely")
    worker.popen.terminate()
    stage.died(worker)
    stage.start()
    stage.ended(run_id, attempt=1)
    stage.once(a=run_id)
    stage.truth("a", run_id, 3)


def swept(stage: Stage) -> None:
    """A worker finds something running that nobody owns."""
    first = stage.start()
    run_id = stage.submit("a", "sleep 600")
    wait_started(run_id)
    stage.begun("a")
    first.kill()
    shim = started(stage.home, run_id).shim_pid
    services.remove_node(stage.node, force=True)
    services.set_node_mode(stage.node, Node.Mode.READY, force=True)
    assert alive(shim), "the command died with its worker"
    stage.died(stage.crashing())
    stage.start()
    wait_until(lambda: not alive(shim), why="the orphan is killed")
    stage.ended(run_id, reason=Reason.NODE_GONE, attempt=1)
    stage.once(a=run_id)


def given_up(stage: Stage) -> None:
    """A machine is gone, and the worker elsewhere that gives up its attempts dies meanwhile."""
    away = stage.cluster.node("away", GANTRY_WAIT_BROKER="0")
    gate = stage.ledger.with_name("a.gate")
    gate.touch()
    command = ledger_command(stage.ledger, "a", f"while test -e {gate}; do sleep 0.05; done", code=3)
    run_id = submit(stage.tenant_id, command, retries=1)
    wait_started(run_id)
    wait_begun(stage.ledger, "a")
    home = stage.cluster.folder / "away"
    shim = started(home, run_id).shim_pid
    away.kill()
    kill(launcher_pid(home), shim)
    gate.unlink()
    with connection.cursor() as cursor:  # an hour ago, that is
        cursor.execute("UPDATE workers_node SET heartbeat_at = heartbeat_at - interval '1 hour'")
    stage.died(stage.crashing())
    stage.start()
    stage.ended(run_id, exit_code=3, attempt=2)
    first = Attempt.objects.get(run_id=run_id, number=1)
    assert first.reason == Reason.UNREACHABLE, f"the first attempt ended with {first.reason}"
    assert_once(stage.ledger, {"a": run_id})
    stage.cluster.node("away", GANTRY_WAIT_BROKER="0")  # and clears up what the crash left there


_STORIES: dict[str, Story] = {
    **dict.fromkeys(STEPS, ordinary),
    "agent.before_adopt_commit": taken_over,
    "agent.after_adopt_commit": taken_over,
    "agent.before_register_commit": taken_over,
    "agent.after_register_commit": taken_over,
    "agent.before_orphan_kill": swept,
    "agent.after_orphan_kill": swept,
    "agent.before_goodbye": stopped,
    "agent.after_goodbye": stopped,
    "agent.before_stop": cancelled,
    "agent.after_stop": cancelled,
    "runner.before_stop": out_of_time,
    "runner.after_stop": out_of_time,
}
#: What one node does may be done by any other one: these are played with no other story beside them.
ALONE: list[Case] = [
    ("agent.after_promote", retried),
    ("reconciler.before_close", given_up),
    ("reconciler.before_close_commit", given_up),
    ("reconciler.after_close_commit", given_up),
]
TOGETHER: list[Case] = [
    *((step, story) for step, story in _STORIES.items() if step not in dict(ALONE)),
    ("runner.before_finish_commit", retried),
    ("runner.after_finish_commit", retried),
    ("runner.after_exit", cancelled),
    ("runner.before_finish_commit", cancelled),
]
