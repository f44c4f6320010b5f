"""Fault 22: a run that kills its worker, again and again. It is stopped; everybody else's runs go on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection

from tests.support.cluster import Cluster, Process
from tests.support.engine import run, states, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import (
    assert_invariants,
    assert_once,
    assert_truth,
    begins,
    ledger_command,
    open_ledger,
)
from tests.support.ledger import wait_begun
from tests.support.machine import alive, started
from tests.support.waiting import limit, wait_until
from workers.models import Attempt, Run
from workers.vocabulary.states import FINAL, Reason, State

_LIMIT = 3


class Supervisor:
    """Starts a node's worker again whenever it has died, as systemd would."""

    def __init__(self, cluster: Cluster, **env: str) -> None:
        self._cluster = cluster
        self._env = env
        self._over = threading.Event()
        self.workers: list[Process] = []
        self._start()

    def _start(self) -> None:
        self.workers.append(
            self._cluster.node(wait=False, settings={**self._env, "GANTRY_MAX_CRASHES": str(_LIMIT)})
        )

    @property
    def worker(self) -> Process:
        return self.workers[-1]

    @property
    def deaths(self) -> int:
        return sum(not worker.alive for worker in self.workers)

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            if not self.worker.alive:
                self._start()
        connection.close()

    @contextmanager
    def supervising(self) -> Iterator[None]:
        watching = threading.Thread(target=self._watch, name="supervisor")
        watching.start()
        try:
            yield
        finally:
            self._over.set()
            watching.join()


class Killer:
    """Kills the worker each time that it has the culprit in its hands, for as long as the culprit lives.

    An ordinary user's command does so itself. As root a command has a user and a process namespace of its
    own: a helper outside stands for the bug that such a command would have found.
    """

    def __init__(self, supervisor: Supervisor, home: Path, strike: Path) -> None:
        self._supervisor = supervisor
        self._home = home
        self._strike = strike

    @property
    def command(self) -> str:
        """Ignores TERM, and kills the worker whenever it is told that there is one."""
        lock = self._home / "worker.lock"
        return (
            f"trap '' TERM; while :; do if test -e {self._strike}; then rm -f {self._strike}; "
            f"kill -9 $(cat {lock}) 2>/dev/null; fi; sleep 0.05; done"
        )

    def kill_until_dead(self, run_id: int) -> None:
        """Strike once per lease of the culprit, until its process is gone."""
        shim = started(self._home, run_id).shim_pid
        epoch = 0

        def dead() -> bool:
            nonlocal epoch
            now = run(run_id).lease_epoch
            if alive(shim) and now > epoch:
                epoch = now
                if os.geteuid() == 0:
                    self._supervisor.worker.kill()
                else:
                    self._strike.touch()
            return not alive(shim)

        wait_until(dead, 150, 0.02, "the culprit dies", lambda: states(run_id))
        connection.close()


@pytest.mark.account
def test_a_run_that_kills_its_worker_is_stopped(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a node that dies for ever of one run, and bystanders that are taken for the culprit."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    supervisor = Supervisor(cluster)
    killer = Killer(supervisor, cluster.folder / "n1", shared_folder / "strike")
    bystander = f"while test -e {gate}; do sleep 0.05; done"
    early = submit(account.tenant_id, ledger_command(ledger, "early", bystander, code=5))
    wait_started(early)
    culprit = submit(account.tenant_id, ledger_command(ledger, "culprit", killer.command), grace_s=1)
    wait_started(culprit)
    wait_begun(ledger, "culprit")
    killing = threading.Thread(target=killer.kill_until_dead, args=(culprit,))
    with supervisor.supervising():
        killing.start()
        wait_until(lambda: supervisor.deaths, why="the worker dies")
        late = submit(account.tenant_id, ledger_command(ledger, "late", bystander, code=6))
        (stopped,) = wait_final(culprit, timeout_s=180)
        killing.join(limit(60))
        wait_started(late)
        gate.unlink()
        wait_final(early, late)
    assert _LIMIT <= supervisor.deaths <= _LIMIT + 3, "it was stopped too early, or late"
    assert _LIMIT <= stopped.crashes <= supervisor.deaths
    assert stopped.message == f"Command was killed: its worker died {stopped.crashes} times while it ran"
    assert (stopped.state, stopped.reason, stopped.attempt) == (State.FAILED, Reason.LOST, 1)
    names = {"early": early, "culprit": culprit, "late": late}
    assert begins(ledger) == dict.fromkeys(names, 1)
    assert_once(ledger, names)
    assert_truth(ledger, "early", early, 5)
    assert_truth(ledger, "late", late, 6)
    assert supervisor.worker.alive
    assert_invariants(cluster)


@pytest.mark.account
def test_a_run_that_kills_its_worker_before_it_starts_is_stopped(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches an endless circle of worker deaths where nothing runs that could be killed."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    ledger = open_ledger(shared_folder)
    supervisor = Supervisor(cluster, GANTRY_CRASH_AT="runner.before_start")
    with supervisor.supervising():
        run_id = submit(account.tenant_id, ledger_command(ledger, "a"))
        (stopped,) = wait_final(run_id, timeout_s=180)
    assert supervisor.deaths == _LIMIT
    assert (stopped.state, stopped.reason) == (State.FAILED, Reason.LOST)
    assert stopped.message == f"Command was not started: its worker died {_LIMIT} times while preparing it"
    assert begins(ledger) == {}
    assert Attempt.objects.get(run_id=run_id).started_at is None
    assert not Run.objects.exclude(state__in=FINAL).exists()
    assert_invariants(cluster)
