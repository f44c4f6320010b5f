"""What is owed, and when: rows committed with the transition, rendered by the family, in order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from tasks_api import wire
from tests.integration.engine_rows import World, cursor
from workers.callbacks import outbox
from workers.models import Callback, Node, Run
from workers.runs import losses, transitions
from workers.vocabulary.leases import Outcome
from workers.vocabulary.states import Reason, State

pytestmark = pytest.mark.django_db
URL = "http://client.example:8080/hook"


def told(run_id: int | None = None) -> list[tuple[str, int, dict[str, Any]]]:
    rows = Callback.objects.order_by("id")
    if run_id is not None:
        rows = rows.filter(run_id=run_id)
    return [(row.event, row.sequence, json.loads(row.body)) for row in rows]


def events() -> list[str]:
    return [event for event, _, _ in told()]


def test_start_and_end_are_told_in_the_documented_form(world: World, node: Node, settings: Any) -> None:
    settings.GANTRY_PUBLIC_URL = "https://gantry.example"
    lease = world.claimed(node, callback_url=URL, name="demo")
    assert not told(), "a claim owes nothing"
    world.started(lease)
    world.started(lease)
    world.finish(
        lease, State.FAILED, reason=Reason.EXIT_CODE, message="Command exited with status 3", exit_code=3
    )
    (first, one, start), (last, two, end) = told(lease.run_id)
    assert (first, one, last, two) == ("running", 1, "ended", 2)
    assert set(start) == set(end) == {
        "taskId", "result", "message", "source", "logs", "taskName", "tenantId", "taskStatus", "exitCode",
        "attempt", "sequence",
    }  # fmt: skip
    assert {
        key: start[key] for key in ("result", "taskStatus", "exitCode", "message", "attempt", "sequence")
    } == {
        "result": "RUNNING",
        "taskStatus": 1,
        "exitCode": None,
        "message": "Command is running",
        "attempt": 1,
        "sequence": 1,
    }
    assert {key: end[key] for key in end if key != "logs"} == {
        "taskId": lease.run_id,
        "result": "FAILED",
        "message": "Command exited with status 3",
        "source": "SOURCE_EXECUTOR",
        "taskName": "demo",
        "tenantId": "default",
        "taskStatus": 3,
        "exitCode": 3,
        "attempt": 1,
        "sequence": 2,
    }
    for url, stream in zip(end["logs"], ("stdout", "stderr"), strict=True):
        assert url.startswith(f"https://gantry.example/v1/tasks/{lease.run_id}/logs?stream={stream}&expires=")
    row = Callback.objects.get(event="running")
    assert (row.receiver, row.url, row.state, row.owner_kind) == (
        "http://client.example:8080",
        URL,
        "due",
        "run",
    )
    assert row.next_at is not None
    assert Callback.objects.get(event="ended").next_at is None, "the end waits for the start"
    assert Callback.objects.values("message_id").distinct().count() == 2


def test_what_is_over_at_once_is_told_as_started_and_ended(world: World, node: Node) -> None:
    lease = world.claimed(node, callback_url=URL)
    world.finish(
        lease, State.SUCCEEDED, started_ago=0.01, message="Command exited with status 0", exit_code=0
    )
    (_, _, start), (_, _, end) = told()
    assert (start["result"], start["taskStatus"], start["exitCode"]) == ("RUNNING", 1, None)
    assert (end["result"], end["taskStatus"], end["exitCode"]) == ("FINISHED", 2, 0)


def test_one_start_per_attempt_and_nothing_for_a_retry(world: World, node: Node) -> None:
    lease = world.claimed(node, callback_url=URL, retries=2)
    world.started(lease)
    world.retry(lease, exit_code=1)
    assert events() == ["running"]
    Run.objects.update(not_before=None)
    (second,) = world.claim(node, lease.run_id)
    world.retry(second.lease, exit_code=1, started_ago=0.01)
    assert events() == ["running", "running"], "the second attempt was over at once"
    Run.objects.update(not_before=None)
    (third,) = world.claim(node, lease.run_id)
    world.release(third.lease)
    assert events() == ["running", "running"], "one that is given back has not started"
    (fourth,) = world.claim(node, lease.run_id)
    world.adopt(node)
    world.finish(world.adopt(node)[0].lease, State.FAILED, reason=Reason.LOST)
    assert events() == ["running", "running", "ended"]
    assert [body["attempt"] for _, _, body in told()] == [1, 2, fourth.lease.attempt]
    assert [sequence for _, sequence, _ in told()] == [1, 2, 3]


@pytest.mark.parametrize("end", ["cancel", "operator", "expire", "reject", "lost", "removed"])
def test_every_end_is_told_once(world: World, node: Node, end: str) -> None:
    run_id = world.submit(callback_url=URL, expires_in_s=-1 if end == "expire" else 100)
    if end in ("lost", "removed"):
        (run,) = world.claim(node, run_id)
        world.started(run.lease)
        Callback.objects.all().delete()
        with connection.cursor() as opened:
            opened.execute("UPDATE workers_node SET heartbeat_at = now() - interval '1 day'")
        losses.close_node(node.pk, "it is gone", removed=end == "removed")
    elif end == "expire":
        world.expire()
    elif end == "reject":
        world.reject(run_id)
    else:
        world.cancel(run_id, operator=end == "operator")
    ((event, _, body),) = told()
    results = {
        "cancel": "KILLED", "operator": "GONE_BY_OPERATOR", "expire": "EXPIRED", "reject": "ERROR",
        "lost": "UNREACHABLE", "removed": "GONE",
    }  # fmt: skip
    assert (event, body["result"], body["taskId"]) == ("ended", results[end], run_id)
    assert body["source"] == ("SOURCE_EXECUTOR" if end == "reject" else "SOURCE_MASTER")


def test_a_run_without_a_url_costs_no_statement(world: World, node: Node) -> None:
    plain, owing = world.claimed(node), world.claimed(node, callback_url=URL)

    def statements(lease: Any) -> int:
        with CaptureQueriesContext(connection) as queries:
            world.started(lease)
            world.finish(lease)
        return len([query for query in queries if "SAVEPOINT" not in query["sql"]])

    assert statements(plain) == 2, "one to start, one to end"
    # What to tell and the rows, each time; and a look at the start, which is undecided, before the end.
    assert statements(owing) == 7
    assert Callback.objects.count() == 2


def test_a_group_of_runs_costs_no_more_than_one(world: World, node: Node) -> None:
    leases = [world.claimed(node, callback_url=URL) for _ in range(5)]
    outcomes = [Outcome(lease, State.SUCCEEDED, started_ago=0.1) for lease in leases]
    with CaptureQueriesContext(connection) as queries, cursor() as opened:
        transitions.finish(opened, outcomes, by="n1")
    assert len([query for query in queries if "SAVEPOINT" not in query["sql"]]) == 3
    assert events().count("running") == events().count("ended") == 5


def test_a_transition_that_is_rolled_back_owes_nothing(world: World, node: Node) -> None:
    lease = world.claimed(node, callback_url=URL)
    with transaction.atomic():
        world.finish(lease)
        assert Callback.objects.exists()
        transaction.set_rollback(True)
    assert not Callback.objects.exists()


def test_a_stale_lease_owes_nothing(world: World, node: Node) -> None:
    lease = world.claimed(node, callback_url=URL)
    world.adopt(node)
    assert world.finish(lease) == world.started(lease) == set()
    assert not Callback.objects.exists()


def test_a_body_that_cannot_be_rendered_is_minimal(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> dict[str, Any]:
        raise ZeroDivisionError

    monkeypatch.setattr(wire, "callback", broken)
    lease = world.claimed(node, callback_url=URL)
    assert world.finish(lease, exit_code=0) == {lease.run_id}, "the transition does not fail"
    ((event, _, body),) = told()
    assert (event, body["state"], body["run"], body["exit_code"], body["sequence"]) == (
        "ended",
        "SUCCEEDED",
        lease.run_id,
        0,
        1,
    )


def test_a_family_that_nobody_serves_is_told_minimally(world: World, node: Node) -> None:
    lease = world.claimed(node, callback_url=URL, family="unheard")
    world.finish(lease)
    assert told()[0][2]["family"] == "unheard"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://a.example/x", "http://a.example:80"),
        ("https://u:p@A.example./x?y", "https://a.example:443"),
        ("http://[2001:db8::1]:8082/", "http://[2001:db8::1]:8082"),
        ("http://1.2.3/", outbox.NOWHERE),
    ],
)
def test_receivers_are_told_apart_by_scheme_host_and_port(url: str, address: str) -> None:
    assert outbox.receiver(url) == address


def test_an_end_does_not_wait_for_a_start_that_is_decided_or_yields(world: World, node: Node) -> None:
    for decided in (
        {"state": "delivered", "next_at": None},
        {"state": "dead", "next_at": None},
        {"yields": True},
    ):
        lease = world.claimed(node, callback_url=URL)
        world.started(lease)
        Callback.objects.filter(run_id=lease.run_id).update(**decided)
        world.finish(lease)
        assert Callback.objects.get(run_id=lease.run_id, event="ended").next_at is not None
