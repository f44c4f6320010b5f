"""Fault 5: the API dies between commit and ring, and at any other moment, while clients submit.

What is committed runs although nobody rang; what a client sends again under its key stays one thing.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import Api, Cluster
from tests.support.engine import wait_final
from tests.support.fixtures import Account
from tests.support.http import TaskClient, task_id
from tests.support.invariants import assert_invariants, assert_once, assert_truth, ledger_command, open_ledger
from tests.support.receivers import OPEN, Receivers
from tests.support.waiting import limit, wait_until
from workers.models import Run
from workers.vocabulary.states import FINAL, State


def _kill_whole(api: Api) -> None:
    """kill -9 of the server and its workers at once, as the end of a machine or container would do."""
    os.killpg(api.pid, signal.SIGKILL)
    api.popen.wait(limit(60))


def test_killed_between_commit_and_ring(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches a run that only a ring makes visible, and a resend under its key that makes a second run."""
    ledger = open_ledger(shared_folder)
    cluster.node()
    mark = cluster.folder / "died"
    dying = cluster.api(GANTRY_CRASH_AT="api.before_ring", GANTRY_CRASH_ONCE=str(mark))
    command = ledger_command(ledger, "r")
    with TaskClient(dying, account) as client, pytest.raises(httpx.TransportError):
        client.post(command, key="k1")
    assert mark.exists(), "the API did not die where it should"
    (run_id,) = Run.objects.values_list("id", flat=True)
    wait_final(run_id)
    _kill_whole(dying)
    with TaskClient(cluster.api(), account) as client:
        again = client.post(command, key="k1")
    assert (again.status_code, task_id(again)) == (200, run_id)
    assert Run.objects.count() == 1
    assert_once(ledger, {"r": run_id})
    assert_truth(ledger, "r", run_id)
    assert_invariants(cluster)


class Submitter(threading.Thread):
    """A client that sends each task under a key of its own, again and again until it is accepted."""

    def __init__(
        self, cluster: Cluster, account: Account, ledger: Path, them: Receivers, number: int
    ) -> None:
        super().__init__(name=f"client-{number}")
        self._them = them
        self._cluster = cluster
        self._account = account
        self._ledger = ledger
        self._number = number
        self.stopping = threading.Event()
        #: name -> taskId of what was answered with 2xx.
        self.accepted: dict[str, int] = {}
        self.resent = 0
        self.failure = ""

    def run(self) -> None:
        count = 0
        while not self.stopping.is_set():
            name = f"c{self._number}x{count}"
            count += 1
            try:
                self.accepted[name] = self._submit(name)
            except Exception as error:
                self.failure = f"{name}: {error!r}"
                return

    def _submit(self, name: str) -> int:
        command = ledger_command(self._ledger, name)

        def answered() -> httpx.Response | None:
            api = next(p for p in reversed(self._cluster.processes) if isinstance(p, Api))
            try:
                with TaskClient(api, self._account, 20) as client:
                    return client.post(command, key=name, callbackUrl=self._them.url(f"/{name}"))
            except httpx.TransportError:
                self.resent += 1
                return None

        # It is asked for None: an httpx.Response is false when it is an error.
        (answer,) = wait_until(lambda: (found := answered()) is not None and (found,), 120, 0.1, name)
        assert answer.status_code == 200, answer.text
        return task_id(answer)


def _kill_again_and_again(
    cluster: Cluster, account: Account, folder: Path, them: Receivers, times: int
) -> None:
    ledger = open_ledger(folder)
    cluster.node()
    cluster.callbacks(settings=OPEN)
    clients = [Submitter(cluster, account, ledger, them, number) for number in range(3)]
    api = cluster.api()
    for client in clients:
        client.start()
    try:
        for turn in range(times):
            wanted = Run.objects.count() + 15
            wait_until(
                lambda: Run.objects.count() >= wanted or any(c.failure for c in clients),  # noqa: B023
                why=f"clients submit after {turn} kills",
            )
            _kill_whole(api)
            api = cluster.api()
    finally:
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.join(limit(130))
    assert [client.failure for client in clients] == ["", "", ""]
    assert sum(client.resent for client in clients) > 0, "no kill hit a client: it proved nothing"
    names = {name: run_id for client in clients for name, run_id in client.accepted.items()}
    wait_until(
        lambda: Run.objects.filter(state__in=FINAL).count() == Run.objects.count(), 120, why="all ends"
    )
    assert Run.objects.count() == len(names), "a resend made a second run"
    assert Run.objects.filter(pk__in=names.values(), state=State.SUCCEEDED).count() == len(names)
    assert_once(ledger, names)
    assert_invariants(cluster, receivers=them)


def test_killed_while_clients_submit(
    cluster: Cluster, account: Account, shared_folder: Path, them: Receivers
) -> None:
    """Catches an acknowledged task that is gone after the kill, a resend that makes a second one, an end
    that is not told."""
    _kill_again_and_again(cluster, account, shared_folder, them, 3)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_killed_fifty_times(cluster: Cluster, account: Account, shared_folder: Path, them: Receivers) -> None:
    """The same 50 times."""
    _kill_again_and_again(cluster, account, shared_folder, them, 50)
