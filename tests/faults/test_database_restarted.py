"""Fault 11: Postgres stops at once and restarts, connections are ended, while runs flow and clients submit.

What was acknowledged exists and ends; every other answer is in the family's envelope and says to come again.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.cluster import Api, Cluster
from tests.support.engine import submit, wait_final
from tests.support.fixtures import Account
from tests.support.http import TaskClient, task_id
from tests.support.invariants import assert_invariants, assert_once, assert_truth, ledger_command, open_ledger
from tests.support.outages import patiently, postgres_down, terminate_connections
from tests.support.receivers import OPEN, Receivers
from tests.support.waiting import limit, wait_until
from workers.models import Attempt, Run
from workers.vocabulary.states import FINAL, State

#: "The database does not answer" in the numbers of the tasks family.
DATABASE = -2127552011


class Client(threading.Thread):
    """Submits without pause and notes every answer."""

    def __init__(self, api: Api, account: Account, ledger: Path, them: Receivers, number: int) -> None:
        super().__init__(name=f"client-{number}")
        self._them = them
        self._api = api
        self._account = account
        self._ledger = ledger
        self._number = number
        self.stopping = threading.Event()
        self.accepted: dict[str, int] = {}
        self.refused: list[httpx.Response] = []
        self.failure = ""

    def run(self) -> None:
        try:
            with TaskClient(self._api, self._account, 40) as client:
                while not self.stopping.wait(0.02):
                    name = f"c{self._number}x{len(self.accepted) + len(self.refused)}"
                    command = ledger_command(self._ledger, name, "sleep 0.1")
                    answer = client.post(command, name=name, callbackUrl=self._them.url(f"/{name}"))
                    if answer.is_success:
                        self.accepted[name] = task_id(answer)
                    else:
                        self.refused.append(answer)
        except Exception as error:
            self.failure = repr(error)


def _failures(clients: list[Client]) -> list[str]:
    return [client.failure for client in clients if client.failure]


def _outage(turn: int, clients: list[Client]) -> None:
    """One fault of the database, in turn: a stop until a client notices, or a burst of ended connections."""
    if turn % 2 == 0:
        with postgres_down():
            before = sum(len(client.refused) for client in clients)
            wait_until(
                lambda: sum(len(client.refused) for client in clients) > before or _failures(clients),
                why="a client is refused",
            )
    else:
        for _ in range(5):
            terminate_connections()
            time.sleep(0.15)  # pace: the rhythm of the fault


def _fault_while_clients_submit(
    cluster: Cluster, account: Account, folder: Path, them: Receivers, turns: int
) -> None:
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"  # a slow recovery on a busy machine is no lost node
    ledger = open_ledger(folder)
    node, api, deliverer = cluster.node(), cluster.api(), cluster.callbacks(settings=OPEN)
    long_running = submit(account.tenant_id, ledger_command(ledger, "long", f"sleep {2 * turns}", code=4))
    clients = [Client(api, account, ledger, them, number) for number in range(3)]
    for client in clients:
        client.start()

    def accepted() -> int:
        assert not _failures(clients)
        return sum(len(client.accepted) for client in clients)

    try:
        for turn in range(turns):
            wanted = accepted() + 15
            wait_until(lambda: accepted() >= wanted, why=f"clients are served after {turn} faults")  # noqa: B023
            _outage(turn, clients)
    finally:
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.join(limit(120))
    assert node.alive, node.text()[-3000:]
    assert api.alive, api.text()[-3000:]
    assert deliverer.alive, deliverer.text()[-3000:]
    _assert_refusals(api, [answer for client in clients for answer in client.refused])
    names = {"long": long_running}
    names |= {name: run_id for client in clients for name, run_id in client.accepted.items()}
    missing = set(names.values()) - set(Run.objects.values_list("id", flat=True))
    assert not missing, f"acknowledged and gone: {missing}"
    wait_until(
        patiently(lambda: not Run.objects.exclude(state__in=FINAL).exists()),
        90,
        why="everything accepted ends",
    )
    # A commit whose answer was lost may have made a run that nobody knows: it ran once like the others.
    names |= {row.name: row.pk for row in Run.objects.exclude(pk__in=names.values())}
    assert not Run.objects.exclude(pk=long_running).exclude(state=State.SUCCEEDED).exists()
    assert Attempt.objects.count() == len(names), "a run was tried twice"
    assert_once(ledger, names)
    assert_truth(ledger, "long", long_running, code=4)
    for name in list(names)[1::10]:
        assert_truth(ledger, name, names[name])
    assert_invariants(cluster, receivers=them)


def _assert_refusals(api: Api, answers: list[httpx.Response]) -> None:
    assert answers, "no client noticed any fault: it proved nothing"
    for answer in answers:
        body: dict[str, Any] = answer.json()
        assert (answer.status_code, set(body), body["status"]) == (503, {"status", "message"}, DATABASE), (
            f"{answer.text}\n{api.text().partition('Traceback')[2][-4000:]}"
        )
        assert "again" in body["message"]
        assert int(answer.headers["Retry-After"]) > 0


def test_postgres_stopped_and_connections_ended_while_clients_submit(
    cluster: Cluster, account: Account, shared_folder: Path, them: Receivers
) -> None:
    """Catches an acknowledged task that is lost, a run started twice after an unknown commit, a worker, API
    or deliverer that does not come back, an end that is not told, an answer that no client of the family can
    read."""
    _fault_while_clients_submit(cluster, account, shared_folder, them, 4)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_postgres_stopped_and_connections_ended_forty_times(
    cluster: Cluster, account: Account, shared_folder: Path, them: Receivers
) -> None:
    """The same 40 times."""
    _fault_while_clients_submit(cluster, account, shared_folder, them, 40)


def test_ends_are_recorded_although_they_came_while_postgres_was_down(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches an exit code or output that is dropped because nobody could take it at that moment."""
    ledger = open_ledger(shared_folder)
    cluster.node(GANTRY_NODE_LOST_AFTER_S="120")
    gate = shared_folder / "gate"
    gate.touch()
    body = f"while test -e {gate}; do sleep 0.05; done"
    names = {
        f"r{code}": submit(account.tenant_id, ledger_command(ledger, f"r{code}", body, code))
        for code in range(6)
    }
    wait_until(lambda: Run.objects.filter(started_at__isnull=False).count() == 6, why="all have started")
    with postgres_down():
        gate.unlink()
        wait_until(lambda: ledger.read_text().count("end ") == 6, why="all end while Postgres is down")
    wait_until(patiently(lambda: wait_final(*names.values())), 90, why="the ends are recorded")
    for code, (name, run_id) in enumerate(names.items()):
        assert_truth(ledger, name, run_id, code)
    assert_once(ledger, names)
    assert_invariants(cluster)
