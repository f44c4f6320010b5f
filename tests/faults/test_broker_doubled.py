"""Fault 10: every ring doubled and shuffled, every execute message delivered again, early, late and stale.

A message carries a lease and nothing else; what may be executed is decided by the worker's own memory and the
database. So a copy may be the one that starts a run, but never a second one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from config.celery import app
from tests.support.cluster import Cluster
from tests.support.engine import submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, assert_once, assert_truth, ledger_command, open_ledger
from tests.support.outages import executed_by_celery
from tests.support.seeds import dice
from tests.support.session import REDIS
from tests.support.waiting import wait_until
from workers.messages.doorbell import CHANNEL
from workers.models import Attempt, Run
from workers.vocabulary.states import State

QUEUE = "node.n1"


class Echo:
    """Sends copies of execute messages to the node's own queue, with the day's seed."""

    def __init__(self) -> None:
        self._random = dice("copies of messages")
        self._connection = app.connection_for_write()
        self._producer = app.amqp.Producer(self._connection)
        self.sent = 0

    def send(self, run_id: int, attempt: int, epoch: int) -> None:
        arguments = [run_id, attempt, epoch]
        app.send_task("gantry.execute", args=arguments, queue=QUEUE, producer=self._producer, retry=True)
        self.sent += 1

    def any_lease(self, run_id: int) -> None:
        """The lease that the first claim of this run has, or one of those that it has not (any more)."""
        leases = [(1, 1), (1, 1), (1, 0), (1, 2), (2, 1), (0, 1)]
        self.send(run_id, *self._random.choice(leases))

    def storm(self, known: list[int], stopping: threading.Event) -> None:
        """Rings and copies without pause: of runs that wait, run, have ended, and of runs yet to come."""
        with contextlib.closing(REDIS.client()) as bell:
            while not stopping.wait(0.005):
                bell.publish(CHANNEL, b"")
                bell.publish(CHANNEL, b"")
                newest = known[-1] if known else 0
                self.any_lease(newest + self._random.randint(1, 5))
                if known:
                    self.any_lease(self._random.choice(known[-40:]))

    def close(self) -> None:
        self._connection.release()


@contextlib.contextmanager
def _storm(echo: Echo, known: list[int]) -> Iterator[None]:
    stopping = threading.Event()
    thread = threading.Thread(target=echo.storm, args=(known, stopping))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _queue_is_empty() -> bool:
    with contextlib.closing(REDIS.client()) as client:
        return client.llen(QUEUE) == 0


def _settle(echo: Echo) -> None:
    """Every copy has been taken by the node's Celery, so each had its chance to do harm."""
    wait_until(_queue_is_empty, 60, why="the node takes every copy")
    wait_until(lambda: (executed_by_celery() or 0) >= echo.sent, 60, why="Celery has executed every copy")


def test_every_ring_and_every_message_doubled(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a run that a second delivery starts again, or a stale one outside of its lease."""
    ledger = open_ledger(shared_folder)
    cluster.node()
    echo = Echo()
    names: dict[str, int] = {}
    known: list[int] = []
    try:
        with _storm(echo, known):
            for n in range(150):
                name = f"r{n}"
                code = 3 if n % 10 == 0 else 0
                command = ledger_command(ledger, name, "sleep 0.1" if n % 3 else "", code)
                names[name] = submit(account.tenant_id, command, retries=1 if code else 0)
                known.append(names[name])
                time.sleep(0.01)  # pace: the load
            ended = wait_final(*known, timeout_s=120)
        again = known * 2
        dice("copies in another order").shuffle(again)
        for run_id in again:
            echo.send(run_id, 1, 1)
        _settle(echo)
    finally:
        echo.close()
    assert [row.attempt for row in ended] == [2 if n % 10 == 0 else 1 for n in range(150)]
    assert_once(ledger, names)
    for n, name in enumerate(names):
        if n % 10:
            assert_truth(ledger, name, names[name])
    assert Attempt.objects.count() == 165
    assert_invariants(cluster)


def test_messages_of_a_dead_worker_reach_the_next_one(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches an adopted run that a message from before the adoption starts again."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"  # a restart on a busy machine is no lost node
    ledger = open_ledger(shared_folder)
    gate = shared_folder / "gate"
    gate.touch()
    wait = f"while test -e {gate}; do sleep 0.05; done"
    first = cluster.node()
    names = {f"r{n}": submit(account.tenant_id, ledger_command(ledger, f"r{n}", wait)) for n in range(8)}
    for run_id in names.values():
        wait_started(run_id)
    first.kill()
    echo = Echo()
    try:
        for run_id in [*names.values()] * 3:
            echo.send(run_id, 1, 1)
        cluster.node()
        wait_until(lambda: Run.objects.filter(lease_epoch=2).count() == len(names), why="all are adopted")
        for run_id in [*names.values()] * 3:
            echo.send(run_id, 1, 1)
            echo.send(run_id, 1, 2)
        gate.unlink()
        wait_final(*names.values())
        _settle(echo)
    finally:
        echo.close()
    assert Run.objects.filter(state=State.SUCCEEDED, attempt=1).count() == len(names)
    assert_once(ledger, names)
    for name, run_id in names.items():
        assert_truth(ledger, name, run_id)
    assert_invariants(cluster)
