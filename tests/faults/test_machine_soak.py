"""Fault 26: everything at once for a while. Clients submit and cancel over HTTP while workers are killed and
stopped, Redis restarts and the database's connections end, in an order that a fixed seed decides.

Afterwards every invariant holds, and what lived through it all (the API, a worker, its launcher) has neither
more memory nor more open files than early on.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.cluster import Api, Cluster, Process
from tests.support.fixtures import Account
from tests.support.http import TaskClient, task_id
from tests.support.invariants import assert_invariants, begins, ledger_command, open_ledger
from tests.support.machine import launcher_pid
from tests.support.outages import (
    flush_redis,
    patiently,
    restart_redis,
    terminate_connections,
    wait_broker_used,
)
from tests.support.waiting import limit, wait_until
from workers.models import Attempt, Run
from workers.vocabulary.states import FINAL, State

MIB = 2**20


@dataclass
class Plan:
    """What a client did with one task."""

    code: int
    retries: int
    run_id: int
    cancelled: bool = False


class Client(threading.Thread):
    """Submits at a steady pace, sends again what was not accepted, kills a task now and then."""

    def __init__(self, api: Api, account: Account, ledger: Path, number: int, pace_s: float) -> None:
        super().__init__(name=f"client-{number}")
        self._client = TaskClient(api, account)
        self._ledger = ledger
        self._number = number
        self._pace_s = pace_s
        self._random = random.Random(number)
        self.stopping = threading.Event()
        self.plans: dict[str, Plan] = {}
        self.failure = ""

    def run(self) -> None:
        try:
            with self._client:
                while not self.stopping.wait(self._pace_s):
                    self._one(f"c{self._number}x{len(self.plans)}")
        except Exception as error:
            self.failure = repr(error)

    def _one(self, name: str) -> None:
        code = self._random.choice([0, 0, 0, 0, 3])
        retries = self._random.choice([0, 1])
        command = ledger_command(self._ledger, name, f"sleep {self._random.random():.2f}", code)
        answer = self._until_accepted(lambda: self._client.post(command, key=name, name=name, retry=retries))
        plan = self.plans[name] = Plan(code, retries, task_id(answer))
        if self._random.random() < 0.1:
            plan.cancelled = True
            self._until_accepted(
                lambda: self._client.http.post("/v1/tasks/kill", params={"taskId": plan.run_id})
            )

    def _until_accepted(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        def accepted() -> httpx.Response | None:
            answer = send()
            assert answer.status_code in (200, 503), answer.text
            return answer if answer.status_code == 200 else None

        return wait_until(accepted, 120, 0.2, "what was refused with 503 is accepted in the end")


@dataclass
class Gauge:
    """Memory and open files of a process over time."""

    process: psutil.Process
    #: An ordinary user may not look into a launcher, not even into its own: then its files are not counted.
    hidden: bool = False
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def read(self) -> None:
        self.memory.append(self.process.memory_info().rss)
        self.files.append(0 if self.hidden else self.process.num_fds())

    def growth(self) -> tuple[float, int]:
        """By how much the least of the last third lies above the least of the second: (MiB, files).

        The first third is for warming up; the least of many readings leaves out what is in use for a moment.
        """
        third = len(self.memory) // 3
        least = [min(self.memory[n * third : (n + 1) * third]) for n in range(3)]
        files = [min(self.files[n * third : (n + 1) * third]) for n in range(3)]
        return (least[2] - least[1]) / MIB, files[2] - files[1]


def _serving(api: Api) -> int:
    """The API's process that serves: the child of the one that was started."""
    children = psutil.Process(api.pid).children()
    return int(children[0].pid if children else api.pid)


class Soak:
    """The servers, the clients and the faults of one run."""

    def __init__(self, cluster: Cluster, account: Account, folder: Path, pace_s: float) -> None:
        self.cluster = cluster
        cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"  # a restart on a busy machine is no lost node
        self.ledger = open_ledger(folder)
        self.steady = cluster.node("n2")
        self.struck = cluster.node("n1")
        api = cluster.api()
        self.clients = [Client(api, account, self.ledger, number, pace_s) for number in range(2)]
        self.gauges = {
            "API": Gauge(psutil.Process(_serving(api))),
            "worker": Gauge(psutil.Process(self.steady.pid)),
            "launcher": Gauge(psutil.Process(launcher_pid(cluster.folder / "n2")), os.geteuid() != 0),
        }

    def kill_worker(self) -> None:
        self.struck.kill()
        self.struck = self._next_worker()

    def stop_worker(self) -> None:
        assert self.struck.terminate() == 0
        self.struck = self._next_worker()

    def _next_worker(self) -> Process:
        return self.cluster.node("n1", GANTRY_WAIT_BROKER="0")

    def live_through(self, seconds: float) -> int:
        """Faults for so long; returns how many."""
        chance = random.Random(26)
        faults: list[Callable[[], Any]] = [
            self.kill_worker,
            self.stop_worker,
            lambda: restart_redis(chance.random()),
            flush_redis,
            terminate_connections,
        ]
        deadline = time.monotonic() + seconds
        count = 0
        for client in self.clients:
            client.start()
        try:
            while time.monotonic() < deadline:  # pace: how long it lasts
                calm = time.monotonic() + 0.5 + chance.random() * 2
                while time.monotonic() < calm:  # pace: the rhythm of faults
                    for gauge in self.gauges.values():
                        gauge.read()
                    time.sleep(0.2)  # pace: the rhythm of readings and faults
                chance.choice(faults)()
                count += 1
        finally:
            for client in self.clients:
                client.stopping.set()
            for client in self.clients:
                client.join(limit(130))
        assert [client.failure for client in self.clients] == ["", ""]
        return count

    def assert_everything_right(self) -> int:
        """I1 to I6 for all that was accepted; returns how many tasks that were."""
        plans = {name: plan for client in self.clients for name, plan in client.plans.items()}
        wait_until(patiently(lambda: not Run.objects.exclude(state__in=FINAL).exists()), 120, why="all ends")
        assert Run.objects.count() == len(plans), "one thing per key"
        runs = {run.pk: run for run in Run.objects.all()}
        started: dict[int, int] = {}
        for run_id in Attempt.objects.filter(started_at__isnull=False).values_list("run_id", flat=True):
            started[run_id] = started.get(run_id, 0) + 1
        counts = begins(self.ledger)
        for name, plan in plans.items():
            run, began = runs[plan.run_id], counts.get(name, 0)
            told = f"{name}: {plan}, {run.state} {run.reason} {run.message} {run.exit_code}, began {began}"
            if plan.cancelled and run.state == State.CANCELLED:
                assert began <= started.get(run.pk, 0), told  # killed before its first word, perhaps
                continue
            assert (run.state, run.exit_code) == (
                State.FAILED if plan.code else State.SUCCEEDED,
                plan.code,
            ), told
            most = 1 + plan.retries if plan.code else 1
            # A cancel that came when it had just failed leaves its end as it is, and no further try.
            assert (1 if plan.cancelled else most) <= began <= most, told
            assert began == started.get(run.pk, 0), told
        assert_invariants(self.cluster)
        return len(plans)


def _soak(
    cluster: Cluster, account: Account, folder: Path, seconds: float, pace_s: float, most_mib: float
) -> None:
    soak = Soak(cluster, account, folder, pace_s)
    faults = soak.live_through(seconds)
    tasks = soak.assert_everything_right()
    wait_broker_used(account.tenant_id, "n1" if soak.struck.alive else "n2")
    growth = {name: gauge.growth() for name, gauge in soak.gauges.items()}
    print(f"{tasks} tasks, {faults} faults in {seconds:.0f} s; growth in MiB and files: {growth}")
    for name, (memory, files) in growth.items():
        assert memory < most_mib, f"memory of the {name}: {growth}"
        assert files <= 8, f"open files of the {name}: {growth}"


def test_faults_for_a_while(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches what no single fault shows: two in a row, and a connection or buffer that each leaves."""
    _soak(cluster, account, shared_folder, 30, pace_s=0.1, most_mib=12)


@pytest.mark.long
@pytest.mark.timeout(2700)
def test_faults_for_half_an_hour(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """The same for 30 minutes: what grows by a little each time is seen."""
    _soak(cluster, account, shared_folder, 1800, pace_s=0.1, most_mib=12)
