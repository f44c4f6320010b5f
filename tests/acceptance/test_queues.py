"""Queues end to end: HTTP, workers that admit, the deliverer of callbacks, a receiver that verifies."""

from __future__ import annotations

from typing import Any

import httpx

from tests.integration.queues.scene import pool
from tests.support.cluster import Cluster, Process
from tests.support.fixtures import Account
from tests.support.receivers import OPEN, Receivers
from tests.support.waiting import limit, wait_until
from workers.callbacks import signing
from workers.models import Callback


class Queue:
    """The queue of vm of one account, and where its callbacks go."""

    def __init__(self, http: httpx.Client, them: Receivers, secret: str) -> None:
        self.http, self.them, self.secret = http, them, secret

    def ok(self, method: str, path: str, body: object = None) -> Any:
        answer = self.http.request(method, f"/v1/vm/{path}", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["ok"] is True
        return answer.json()["data"]

    def submit(self, request_id: str, *vcpus: int, **data: object) -> dict[str, Any]:
        body = {
            "request_id": request_id,
            "owner_id": "x",
            "data": {"instances": [{"VCPU": vcpu} for vcpu in vcpus], **data},
            "callback": self.them.url(f"/{request_id}"),
        }
        found: dict[str, Any] = self.ok("POST", "", body)
        return found

    def shown(self) -> list[tuple[str, str]]:
        return [(entry["RequestID"], entry["Status"]) for entry in self.ok("GET", "")]

    def wait_shown(self, *wanted: tuple[str, str]) -> None:
        wait_until(lambda: self.shown() == list(wanted), why=f"{wanted} are shown", see=self.shown)

    def told(self, request_id: str, aggregate: str) -> None:
        """Its one callback has come, signed, and the entry says so."""
        wait_until(
            lambda: self.ok("GET", f"{request_id}/")["CallbackState"] == "delivered",
            why=f"{request_id} is told",
            see=lambda: self.ok("GET", f"{request_id}/"),
        )
        (delivery,) = self.them.at(f"/{request_id}")
        body = delivery.verified(self.secret)
        assert (body["request_id"], body["type"], body["owner_id"]) == (request_id, "vm", "x")
        assert (body["status"], body["sequence"]) == ("running", 1)
        assert body["data"]["host_aggregate"] == aggregate


def test_requests_are_admitted_told_and_ended(cluster: Cluster, account: Account, them: Receivers) -> None:
    """On one API, one deliverer and two workers; the steps say what they show.

    Nobody looks by the clock here: whatever is admitted is so because somebody rang.
    """
    cluster.env["GANTRY_QUEUE_LOOK_S"] = "600"
    _, secret = signing.make(account.tenant_id)
    pool("rack", 2, 2)
    api, first = cluster.api(), cluster.node("n1")
    cluster.callbacks(settings=OPEN)
    # verify=False: it is plain HTTP, and loading certificates would cost more than the test.
    with httpx.Client(base_url=api.url, headers=account.headers, timeout=limit(60), verify=False) as http:
        queue = Queue(http, them, secret)
        what_fits_is_admitted_and_told(queue)
        an_end_admits_the_next(queue)
        capacity_admits_and_a_move_decides_whom(queue)
        another_worker_admits_when_one_is_killed(cluster, first, queue)
        nothing_was_told_twice(queue)


def what_fits_is_admitted_and_told(queue: Queue) -> None:
    """Catches a POST that wakes nobody, a gang that is split, a callback without its aggregate."""
    assert queue.submit("one", 2, 1)["Status"] == "queued"
    queue.wait_shown(("one", "running"))
    queue.told("one", "rack")
    queue.submit("two", 2, 2)
    queue.submit("three", 2, 2)
    assert queue.shown() == [("one", "running"), ("two", "queued"), ("three", "queued")]
    assert not queue.them.at("/two")


def an_end_admits_the_next(queue: Queue) -> None:
    """Catches a DELETE that wakes nobody, and one that admits out of order."""
    assert queue.ok("DELETE", "one/") == {}
    queue.wait_shown(("two", "running"), ("three", "queued"))
    queue.told("two", "rack")


def capacity_admits_and_a_move_decides_whom(queue: Queue) -> None:
    """Catches an operator's change or a move that admission does not hear of."""
    queue.submit("four", 3)
    queue.ok("POST", "four", {"before": "three"})
    assert queue.shown() == [("two", "running"), ("four", "queued"), ("three", "queued")]
    pool("tower", 3)
    queue.wait_shown(("two", "running"), ("four", "running"), ("three", "queued"))
    queue.told("four", "tower")


def another_worker_admits_when_one_is_killed(cluster: Cluster, first: Process, queue: Queue) -> None:
    """Catches admission that hangs on one worker, its lock, or its place at the bell."""
    cluster.node("n2")
    first.kill()
    queue.ok("DELETE", "two/")
    queue.wait_shown(("four", "running"), ("three", "running"))
    queue.told("three", "rack")


def nothing_was_told_twice(queue: Queue) -> None:
    names = ["one", "two", "four", "three"]
    assert [(delivery.path, delivery.json["sequence"]) for delivery in queue.them.got] == [
        (f"/{name}", 1) for name in names
    ]
    assert Callback.objects.filter(owner_kind="entry", state="delivered").count() == len(names)
    queue.ok("DELETE", "three/")
    queue.ok("DELETE", "four/")
    assert queue.shown() == []
    ended = queue.ok("GET", "?status=finished")
    assert [entry["RequestID"] for entry in ended] == ["one", "two", "three", "four"]
