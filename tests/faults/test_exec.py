"""Faults of execs: their worker dies, their engine dies, a cancel races their end, the container is bare."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster, pids_under
from tests.support.engine import output, run, wait_final, wait_started
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.images import BARE, load_bare
from tests.support.invariants import (
    assert_invariants,
    assert_once,
    assert_truth,
    begins,
    ledger_command,
    open_ledger,
)
from tests.support.jobs import box
from tests.support.machine import kill
from tests.support.seeds import dice
from tests.support.waiting import wait_until
from tests.unit.launcher.launching import mark, sleepers
from workers import services
from workers.launcher import control
from workers.models import Attempt
from workers.vocabulary.specs import ExecSpec
from workers.vocabulary.states import Reason, State


def submit_exec(tenant_id: int, *argv: str, container: str = "box", spec: Any = None, **more: Any) -> int:
    """Execute these words, or a script of the container's shell if it is one."""
    words = list(argv) if len(argv) > 1 else ["/bin/sh", "-c", *argv]
    given = ExecSpec(container=container, argv=words, selectors=["all"], **(spec or {}))
    return services.submit(services.Submission(tenant_id, "jobs", given, "test", **more))


@pytest.fixture(autouse=True)
def _patient(cluster: Cluster) -> None:
    """Restarts take seconds under load: no guard and no reconciler steps in meanwhile."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"


def clean(cluster: Cluster) -> None:
    assert_invariants(cluster)
    wait_until(lambda: not list(cluster.folder.glob("*/execs/*")), why="I4: a control folder is left")


@pytest.mark.parametrize("victims", ["worker", "tree"])
def test_the_worker_dies_while_a_command_runs(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, victims: str
) -> None:
    """Catches a second execution, a command that dies with its worker, output lost or doubled."""
    where = box(engine, "box", binds=[f"{shared_folder}:{shared_folder}"])
    worker = cluster.node(settings=engine.env)
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"echo before; while test -e {gate}; do sleep 0.05; done; seq 1 200000; echo after"
    run_id = submit_exec(account.tenant_id, ledger_command(ledger, "a", body, code=5))
    wait_started(run_id)
    wait_until(lambda: output(run_id) == b"out-a\nbefore\n", why="the first output is stored")
    worker.kill()
    if victims == "tree":
        kill(*pids_under(cluster.folder))
    gate.unlink()
    cluster.node(settings=engine.env)
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.exit_code, ended.attempt) == (State.FAILED, 5, 1)
    numbers = "".join(f"{number}\n" for number in range(1, 200_001))
    if victims == "worker":
        assert output(run_id).decode() == f"out-a\nbefore\n{numbers}after\n"
    else:  # its listener, too: the engine still knows how it ended
        assert output(run_id).startswith(b"out-a\nbefore\n\n[the end of its output is missing: ")
        assert "the end of its output is missing" in ended.message
        assert Attempt.objects.get(run_id=run_id).log_truncated
    assert_once(ledger, {"a": run_id})
    assert engine.client.api.inspect_container(where)["State"]["Running"]
    clean(cluster)


@pytest.mark.parametrize("step", ["runner.before_start", "runner.after_start", "runner.after_exit"])
def test_the_worker_dies_at(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, step: str
) -> None:
    """Catches a command that is executed twice, or never, or whose end is forgotten."""
    box(engine, "box", binds=[f"{shared_folder}:{shared_folder}"])
    once = cluster.folder / "once"
    died = cluster.node(settings={**engine.env, "GANTRY_CRASH_AT": step, "GANTRY_CRASH_ONCE": str(once)})
    ledger = open_ledger(shared_folder)
    run_id = submit_exec(account.tenant_id, ledger_command(ledger, "a", "sleep 0.3"))
    wait_until(lambda: not died.alive, why=f"the worker dies at {step}")
    cluster.node(settings=engine.env)
    wait_final(run_id)
    assert_once(ledger, {"a": run_id})
    assert_truth(ledger, "a", run_id)
    clean(cluster)


def test_the_worker_dies_before_the_engine_said_its_number(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """A brief command may end before the engine knows its number: catches a result with Pid 0."""
    box(engine, "box", binds=[f"{shared_folder}:{shared_folder}"])
    once, gate = cluster.folder / "once", shared_folder / "gate"
    gate.touch()
    crash = {"GANTRY_CRASH_AT": "runner.after_start", "GANTRY_CRASH_ONCE": str(once)}
    died = cluster.node(settings={**engine.env, **crash})
    run_id = submit_exec(account.tenant_id, f"while test -e {gate}; do sleep 0.05; done")
    wait_until(lambda: not died.alive, why="the worker dies")
    (told,) = cluster.folder.glob("*/execs/**/started")
    control.write_record(str(told), {**(control.read_record(str(told)) or {}), "pid": None})
    assert "pid" not in Attempt.objects.get(run_id=run_id).facts
    gate.unlink()
    cluster.node(settings=engine.env)
    wait_final(run_id)
    facts = Attempt.objects.get(run_id=run_id).facts
    assert facts["pid"] == engine.client.api.exec_inspect(facts["exec_id"])["Pid"]
    clean(cluster)


def test_the_engine_dies_and_takes_the_container(
    mortal_engine: Engine, cluster: Cluster, account: Account
) -> None:
    """Catches success without an exit code, and a run that waits for ever."""
    box(mortal_engine, "box")
    cluster.node(settings=mortal_engine.env)
    run_id = submit_exec(account.tenant_id, "echo begun; sleep 600")
    wait_started(run_id)
    wait_until(lambda: output(run_id) == b"begun\n", why="its output is stored")
    mortal_engine.kill_daemon()
    mortal_engine.start_daemon()
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.reason, ended.exit_code) == (State.FAILED, Reason.LOST, None)
    assert "its container" in ended.message
    clean(cluster)


def test_the_engine_dies_and_the_container_lives(
    mortal_engine: Engine, cluster: Cluster, account: Account
) -> None:
    """With live-restore the daemon forgets its execs, and the command goes on: catches one that is left
    running while its run has ended, and an end that was made up."""
    mortal_engine.stop_daemon()
    mortal_engine.start_daemon(live_restore=True)
    box(mortal_engine, "box")
    cluster.node(settings=mortal_engine.env)
    number = mark()
    run_id = submit_exec(account.tenant_id, f"echo begun; setsid sleep {number} & sleep {number}")
    wait_until(lambda: output(run_id) == b"begun\n", why="its output is stored")
    mortal_engine.kill_daemon()
    mortal_engine.start_daemon(live_restore=True)
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.reason, ended.exit_code) == (State.FAILED, Reason.LOST, None), ended.message
    assert "the engine does not know it any more" in ended.message
    assert sleepers(number) == []
    clean(cluster)


def test_cancels_race_the_end(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    _race(engine, cluster, account, shared_folder, 12)


@pytest.mark.long
def test_a_hundred_cancels_race_the_end(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    _race(engine, cluster, account, shared_folder, 100)


def _race(engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, how_many: int) -> None:
    """Catches a cancel without an end, an end that is recorded twice, a success that never was."""
    box(engine, "box", binds=[f"{shared_folder}:{shared_folder}"])
    cluster.node(settings=engine.env)
    ledger = open_ledger(shared_folder)
    chance = dice(f"cancels of execs, {how_many}")
    runs: dict[str, int] = {}
    for number in range(how_many):
        name = f"r{number}"
        runs[name] = submit_exec(account.tenant_id, ledger_command(ledger, name, "sleep 0.2"), grace_s=1)
        if number % 6 == 5:
            time.sleep(chance.uniform(0.2, 1.0))  # pace: the race itself
            for each in list(runs.values())[-6:]:
                services.cancel(account.tenant_id, each)
                time.sleep(chance.uniform(0, 0.05))  # pace: the race itself
    ended = {row.pk: row for row in wait_final(*runs.values(), timeout_s=120)}
    counts = begins(ledger)
    ends = {line.split()[1] for line in ledger.read_text().splitlines() if line.startswith("end")}
    for name, run_id in runs.items():
        if ended[run_id].state == State.SUCCEEDED:
            assert_once(ledger, {name: run_id})
            assert_truth(ledger, name, run_id)
        else:
            assert ended[run_id].state == State.CANCELLED, ended[run_id].message
            # One that is killed at its start may be dead before its first line.
            tries = Attempt.objects.filter(run_id=run_id, started_at__isnull=False).count()
            assert counts.get(name, 0) <= tries <= 1, f"I2: {name} began {counts.get(name, 0)} times"
        if not counts.get(name):
            assert name not in ends
    clean(cluster)


def test_a_container_without_a_shell(engine: Engine, cluster: Cluster, account: Account) -> None:
    """Catches a wrapper that is taken for granted: output, exit code, kill, program that is missing."""
    load_bare(engine)
    box(engine, "box", image=BARE, command=["/bin/busybox", "sleep", "100000"])
    cluster.node(settings=engine.env)
    number = mark()
    good = submit_exec(account.tenant_id, "/bin/busybox", "echo", "said")
    bad = submit_exec(account.tenant_id, "/bin/busybox", "false")
    none = submit_exec(account.tenant_id, "/no/such/program", "-x")
    killed = submit_exec(account.tenant_id, "/bin/busybox", "sleep", number, grace_s=1)
    ended, failed, missing = wait_final(good, bad, none)
    assert (ended.state, ended.exit_code, output(good)) == (State.SUCCEEDED, 0, b"said\n"), ended.message
    assert (failed.state, failed.exit_code) == (State.FAILED, 1)
    assert (missing.reason, "/no/such/program" in missing.message) == (Reason.CREATE, True)
    wait_until(lambda: sleepers(number), why="it runs")
    services.cancel(account.tenant_id, killed)
    (ended,) = wait_final(killed)
    assert (ended.state, sleepers(number)) == (State.CANCELLED, [])
    clean(cluster)


def test_without_a_shell_the_next_worker_goes_on(engine: Engine, cluster: Cluster, account: Account) -> None:
    load_bare(engine)
    box(engine, "box", image=BARE, command=["/bin/busybox", "sleep", "100000"])
    worker = cluster.node(settings=engine.env)
    number = mark()
    endless = submit_exec(account.tenant_id, "/bin/busybox", "sleep", number)
    wait_started(endless)
    brief = submit_exec(account.tenant_id, "/bin/busybox", "sh", "-c", "/bin/busybox sleep 8; echo here")
    wait_started(brief)
    worker.kill()
    cluster.node(settings=engine.env)
    (ended,) = wait_final(brief)
    assert (ended.state, ended.exit_code, ended.attempt) == (State.SUCCEEDED, 0, 1)
    assert output(brief) == b"here\n"
    assert len(sleepers(number)) == 1
    services.cancel(account.tenant_id, endless)
    wait_final(endless)
    assert sleepers(number) == []
    clean(cluster)


@pytest.mark.parametrize(
    ("options", "user"),
    [({"read_only": True}, ""), ({"read_only": True}, "1000"), ({"cap_drop": ["ALL"]}, "nobody")],
    ids=["read-only", "read-only-user", "user"],
)
def test_a_container_that_allows_little(
    engine: Engine, cluster: Cluster, account: Account, options: dict[str, Any], user: str
) -> None:
    """Catches output, an adoption or a kill that needs root or a root file system that can be written."""
    box(engine, "box", **options)
    worker = cluster.node(settings=engine.env)
    spec, number = {"user": user}, mark()
    killed = submit_exec(account.tenant_id, f"setsid sleep {number} & sleep {number}", spec=spec, grace_s=1)
    wait_until(lambda: len(sleepers(number)) >= 2, why="what will be killed runs")
    adopted = submit_exec(account.tenant_id, "echo one; sleep 8; echo two; exit 3", spec=spec)
    wait_until(lambda: output(adopted) == b"one\n", why="both run")
    worker.kill()
    cluster.node(settings=engine.env)
    (ended,) = wait_final(adopted)
    assert (ended.state, ended.exit_code, output(adopted)) == (State.FAILED, 3, b"one\ntwo\n")
    services.cancel(account.tenant_id, killed)
    (ended,) = wait_final(killed)
    assert (ended.state, sleepers(number)) == (State.CANCELLED, [])
    assert Attempt.objects.filter(run_id=adopted).count() == 1
    assert run(adopted).lease_epoch == 2
    clean(cluster)
