"""What the next worker makes of what it finds: time that has passed, missing records, a waiting guard.

And what a launcher may still do with a start that nobody waits for any more.
"""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from django.db.models import F

from tests.support.claimed import claimed_run
from tests.support.cluster import Cluster, freeze
from tests.support.engine import run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, assert_once, begins, ledger_command, open_ledger
from tests.support.ledger import wait_begun
from tests.support.machine import (
    alive,
    commands,
    kill,
    launcher,
    launcher_pid,
    signal_all,
    started,
    wait_dead,
    wait_for_file,
    was_started,
)
from tests.support.waiting import wait_until
from workers import secrets, services
from workers.launcher import control
from workers.models import Attempt
from workers.runtimes.base import PrepareFailed, Presence
from workers.runtimes.launched import client as launcher_client
from workers.runtimes.process.runtime import ProcessRuntime
from workers.vocabulary.specs import ProcessSpec
from workers.vocabulary.states import Reason, State


@pytest.fixture(autouse=True)
def _patient(cluster: Cluster) -> None:
    """Restarts take seconds under load: no guard and no reconciler steps in meanwhile."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"


def test_the_time_limit_of_a_start_that_was_not_recorded(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a time limit that begins anew with each worker, so that a run may outlive it for ever."""
    ledger = open_ledger(shared_folder)
    mark = cluster.folder / "crashed"
    first = cluster.node(
        wait=False, GANTRY_CRASH_AT="runner.before_started_commit", GANTRY_CRASH_ONCE=str(mark)
    )
    run_id = submit(account.tenant_id, ledger_command(ledger, "a", "sleep 600"), timeout_s=300)
    wait_dead(first, 90)
    assert run(run_id).started_at is None
    assert was_started(cluster.folder / "n1", run_id)
    Attempt.objects.filter(run_id=run_id).update(claimed_at=F("claimed_at") - timedelta(hours=1))
    cluster.node(GANTRY_WAIT_BROKER="0")
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.reason, ended.attempt) == (State.FAILED, Reason.TIMEOUT, 1)
    assert_once(ledger, {"a": run_id})
    assert_invariants(cluster)


def test_a_started_run_without_any_record_is_lost(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """The machine was switched off: the database knows of the start, the node's disk only of a folder.

    Catches a second execution of the same attempt.
    """
    worker, home = cluster.node(GANTRY_WAIT_BROKER="0"), cluster.folder / "n1"
    ledger = open_ledger(shared_folder)
    run_id = submit(account.tenant_id, ledger_command(ledger, "a", "sleep 600"))
    wait_started(run_id)
    wait_until(lambda: begins(ledger) == {"a": 1}, why="it begins")
    worker.kill()
    shim = started(home, run_id).shim_pid
    processes = [launcher_pid(home), shim, *commands(shim)]
    kill(*processes)
    wait_until(lambda: not any(map(alive, processes)), why="everything is dead")
    (home / "launcher" / "runs" / f"{run_id}-1" / "started").unlink()
    cluster.node(GANTRY_WAIT_BROKER="0")
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.reason, ended.attempt) == (State.FAILED, Reason.LOST, 1)
    assert begins(ledger) == {"a": 1}
    assert_invariants(cluster)


def test_the_guard_hears_of_a_worker_before_it_adopts(cluster: Cluster, account: Account) -> None:
    """Catches a guard that kills what a new worker has just taken over, since it heard of nobody for long."""
    worker, home = cluster.node(GANTRY_WAIT_BROKER="0"), cluster.folder / "n1"
    run_id = submit(account.tenant_id, "sleep 600")
    wait_started(run_id)

    def age() -> float:
        found = launcher(home)
        return (found and found.renewed_age) or 0.0

    wait_until(age, why="the guard knows of the first worker")
    worker.kill()
    wait_until(lambda: age() > 3, why="the guard has heard nothing for a while")
    began = time.monotonic()
    mark = cluster.folder / "held"
    cluster.node(
        wait=False,
        GANTRY_CRASH_AT="agent.before_adopt_commit",
        GANTRY_CRASH_ONCE=str(mark),
        GANTRY_CRASH_HOW="hold",
    )
    wait_for_file(mark, 90)
    assert 0 < age() < time.monotonic() - began, "it adopts, and the guard does not know that it lives"
    Path(f"{mark}.go").touch()
    wait_until(lambda: run(run_id).lease_epoch == 2, why="it is adopted")
    kill(started(home, run_id).shim_pid)
    wait_final(run_id)
    assert_invariants(cluster)


def test_an_unanswered_start_is_not_carried_out_later(
    cluster: Cluster, shared_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher stands still when it is asked, and goes on after the run was given back.

    Catches a launcher that begins late what somebody else may have begun anew meanwhile.
    """
    ledger, home = open_ledger(shared_folder), cluster.folder / "n1"
    runtime = ProcessRuntime(home)
    assert runtime.trouble() == ""  # and the launcher is there
    late, next_one = (
        claimed_run(number, ledger_command(ledger, name)) for number, name in ((1, "late"), (2, "next"))
    )
    runtime.prepare(late, lambda: False, lambda _: None)
    frozen = launcher_pid(home)
    monkeypatch.setattr(launcher_client, "_REQUEST_TIMEOUT", 1.0)
    freeze(frozen)
    with pytest.raises(PrepareFailed, match="launcher") as failed:
        runtime.start(late, control.boottime())
    assert failed.value.ours
    signal_all([frozen], signal.SIGCONT)
    monkeypatch.undo()
    runtime.prepare(next_one, lambda: False, lambda _: None)
    runtime.start(next_one, control.boottime())
    wait_until(lambda: runtime.presence(next_one) is Presence.EXITED, why="the launcher has gone on")
    assert begins(ledger) == {"next": 1}
    assert runtime.presence(late) is Presence.PREPARED
    for number in (1, 2):
        runtime.cleanup(number, 1)


def test_a_run_whose_secrets_nobody_can_read_is_not_a_suspect(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """The next worker was started without the key. What runs goes on and is taken over until the key is back.

    Catches a living worker that counts each of these take-overs as its own death, and so kills the run.
    """
    cluster.env |= {"GANTRY_LEASE_S": "1", "GANTRY_MAX_CRASHES": "3"}
    worker = cluster.node(GANTRY_WAIT_BROKER="0")
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"while test -e {gate}; do sleep 0.05; done"
    spec = ProcessSpec(
        argv=["/bin/sh", "-c", ledger_command(ledger, "a", body, code=5)],
        cpu_m=100,
        mem_mb=32,
        secret_ids=[secrets.store(account.tenant_id, "test", "hidden")],
    )
    run_id = services.submit(
        services.Submission(tenant_id=account.tenant_id, family="tasks", spec=spec, name="test")
    )
    wait_started(run_id)
    wait_begun(ledger, "a")
    worker.kill()
    keyless = cluster.node(GANTRY_WAIT_BROKER="0", GANTRY_SECRET_KEYS=Fernet.generate_key().decode())
    wait_until(lambda: run(run_id).lease_epoch > 6, 150, why="it is taken over again and again")
    found = run(run_id)
    assert (found.state, found.crashes) == (State.RUNNING, 1)
    assert "run.secret_unreadable" in keyless.text()
    keyless.terminate()
    cluster.node(GANTRY_WAIT_BROKER="0")
    gate.unlink()
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.exit_code, ended.attempt) == (State.FAILED, 5, 1)
    assert_once(ledger, {"a": run_id})
    assert_invariants(cluster)
