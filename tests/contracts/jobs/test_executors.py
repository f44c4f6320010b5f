"""Executors: ids, cancel, retry, explain, history, and how many of them cost what."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from jobs.models import Executor, Target
from tests.contracts.jobs.conftest import (
    BODY,
    Api,
    Stage,
    error,
    ok,
)
from workers import explain
from workers.models import Node, Run
from workers.states import Reason, State


def result(api: Api, job: dict[str, Any], executor: str, ordinal: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = api.inspect(job, executor)["Result"][ordinal]
    return found


def test_executors_of_the_same_second_take_the_next_ones(api: Api, stage: Stage) -> None:
    job = api.job()
    first = int(api.start(job, ("a", "n1")))
    Executor.objects.update(number=first + 100, create_time=first + 100.0)
    found = [int(api.start(job, ("a", "n1"))) for _ in range(3)]
    assert found == [first + 101, first + 102, first + 103]
    assert api.inspect(job, str(first + 103))["CreateTime"] == first + 103.0
    listed = ok(api.get("/api/jobs"))[0]["Executors"]
    assert listed == [str(first + number) for number in (100, 101, 102, 103)]


@pytest.mark.django_db(transaction=True)
def test_starts_at_the_same_moment_give_an_executor_each(stage: Stage, api: Api) -> None:
    job = api.job()
    barrier = threading.Barrier(6)
    found: list[str] = []

    def start() -> None:
        barrier.wait()
        found.append(api.start(job, ("a", "n1")))
        connections.close_all()

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 6
    assert ok(api.get("/api/jobs"))[0]["Executors"] == sorted(found, key=int)
    assert Run.objects.count() == 6


@pytest.mark.django_db(transaction=True)
def test_starts_of_two_jobs_do_not_wait_for_each_other(stage: Stage, api: Api) -> None:
    first, second = api.job(), api.job(Name="second")
    api.start(first, ("a", "n1"), ("b", "n2"))
    with transaction.atomic():
        api.start(first, ("a", "n1"), ("b", "n2"))
        started: list[str] = []

        def start() -> None:
            started.append(api.start(second, ("b", "n2"), ("a", "n1")))
            connections.close_all()

        thread = threading.Thread(target=start)
        thread.start()
        thread.join(90)  # a start that waits is refused after 20 s
        assert started, "it went through while the other start was not committed"
    thread.join()


def test_a_start_happens_once_for_a_key(api: Api, stage: Stage) -> None:
    job = api.job()
    first, again = (api.start(job, ("a", "n1"), Idempotency_Key="k") for _ in range(2))
    assert first == again
    assert Run.objects.count() == 1
    other = api.post(
        f"/api/jobs/{job['JobId']}/start",
        {"Target": [{"ContainerId": "b", "NodeId": "n1"}]},
        Idempotency_Key="k",
    )
    assert error(other, 409)[0] == "conflict"


def test_ids_of_no_executor(api: Api, stage: Stage) -> None:
    job, other = api.job(), api.job(Name="other")
    foreign = api.start(other, ("a", "n1"))
    Executor.objects.update(number=5)
    for executor in ("5", "17", "x", "-1", "05", "9" * 30, "1.5"):
        wanted = ("executor_id_not_found", executor)
        path = f"/api/jobs/{job['JobId']}"
        assert error(api.get(f"{path}/inspect/{executor}"), 404) == wanted
        assert error(api.get(f"{path}/log/{executor}?ContainerId=a"), 404) == wanted
        assert error(api.get(f"{path}/explain/{executor}/"), 404) == wanted
        assert error(api.post(f"{path}/cancel/{executor}"), 404) == wanted
        assert error(api.post(f"{path}/retry/{executor}"), 404) == wanted
    assert int(foreign) > 5
    assert len(api.inspect(other, "5")["Result"]) == 1


def test_cancelling_ends_what_waits_and_asks_for_what_runs(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("a", "n1"), ("b", "n1"), ("c", "n1"), ("d", "nowhere"))
    other = api.start(job, ("a", "n1"))
    run = stage.claim(job, executor, 0)
    stage.create(run)
    stage.begin(run)
    stage.run(job, executor, 1)
    for _ in range(2):
        assert ok(api.post(f"/api/jobs/{job['JobId']}/cancel/{executor}"))["Executors"] == [executor, other]
    first, second, third, fourth = api.inspect(job, executor)["Result"]
    assert (first["Status"], second["Status"]) == ("RUNNING", "FINISHED")
    assert (third["Status"], third["E"]) == ("CREATE_FAILED", "Cancelled before it started")
    assert fourth["Status"] == "CREATE_FAILED"
    assert Run.objects.get(pk=run.lease.run_id).cancel_requested_at is not None
    assert result(api, job, other)["Status"] == "STARTING"
    assert Run.objects.filter(cancel_requested_at__isnull=False).count() == 1
    stage.finish(run, State.CANCELLED, Reason.NONE, "Command was killed by request")
    found = result(api, job, executor)
    assert (found["Status"], found["E"]) == ("RUNNING_FAILED", "Command was killed by request")


def test_a_retry_repeats_what_failed_with_the_job_as_it_is_now(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(
        job, ("good", "n1"), ("bad", "n1"), ("lost", "n2"), ("waits", "n1"), ("e", "nowhere")
    )
    path = f"/api/jobs/{job['JobId']}"
    stage.run(job, executor, 0)
    failed = stage.run(job, executor, 1, code=1)
    stage.finish(stage.claim(job, executor, 2), State.FAILED, Reason.LOST, "gone")
    ok(api.put(path, {**BODY, "Cmd": "mended"}))
    retried = ok(api.post(f"{path}/retry/{executor}", Idempotency_Key="k"))
    again = retried["Executors"][-1]
    assert retried["Executors"] == [executor, again]
    assert ok(api.post(f"{path}/retry/{executor}", Idempotency_Key="k")) == retried
    found = api.inspect(job, again)
    assert found["Target"] == [
        {"ContainerId": "bad", "NodeId": "n1"},
        {"ContainerId": "lost", "NodeId": "n2"},
        {"ContainerId": "e", "NodeId": "nowhere"},
    ]
    assert [item["Status"] for item in found["Result"]] == ["STARTING", "STARTING", "CREATE_FAILED"]
    repeated = stage.target(job, again, 0).run
    assert repeated is not None
    assert (repeated.retry_of_id, repeated.spec["argv"]) == (failed.lease.run_id, ["mended"])
    assert Executor.objects.get(number=int(again)).retry_of == Executor.objects.get(number=int(executor))


def test_nothing_failed_is_nothing_to_retry(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("good", "n1"), ("waits", "n1"))
    stage.run(job, executor, 0)
    answer = api.post(f"/api/jobs/{job['JobId']}/retry/{executor}")
    assert error(answer, 409)[0] == "conflict"
    assert Executor.objects.count() == 1


def test_a_waiting_target_is_explained(api: Api, stage: Stage) -> None:
    job = api.job()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workers_node SET heartbeat_at = now() - interval '5 minutes' WHERE name = 'n1'"
        )
    executor = api.start(job, ("a", "n1"), ("b", "nowhere"), ("c", "n2"))
    stage.run(job, executor, 2)
    answer = ok(api.get(f"/api/jobs/{job['JobId']}/explain/{executor}/"))
    assert (answer["JobId"], int(answer["CreateTime"])) == (job["JobId"], int(executor))
    waiting, unknown, ended = answer["Result"]
    assert (waiting["ContainerId"], waiting["NodeId"], waiting["Status"]) == ("a", "n1", "STARTING")
    reason = waiting["Explanation"]["reasons"][0]
    assert (reason["code"], "node n1 has been silent for" in reason["message"]) == ("silent", True)
    assert (unknown["Status"], unknown["Explanation"]) == ("CREATE_FAILED", None)
    assert (ended["Status"], ended["Explanation"]) == ("FINISHED", None)


def test_what_is_meant_for_a_node_is_explained_by_that_node_alone(api: Api, stage: Stage) -> None:
    job = api.job()
    path = f"/api/jobs/{job['JobId']}/explain/{api.start(job, ('a', 'n1'))}"

    def reason() -> str:
        explain._cache = (0.0, [])
        told: str = ok(api.get(path))["Result"][0]["Explanation"]["reasons"][0]["message"]
        return told

    Node.objects.filter(name="n1").update(slots_used=64)
    assert reason() == "node n1 runs as many things as it may at once"
    Node.objects.filter(name="n1").update(slots_used=0, mode=Node.Mode.DRAINING)
    assert reason() == "node n1 is draining"
    Node.objects.filter(name="n1").update(mode=Node.Mode.REMOVED)
    assert reason() == "it is meant for node n1, which is not there"


def test_history_is_every_start_with_its_results(api: Api, stranger: Api, stage: Stage) -> None:
    job, other = api.job(), api.job(AppName="2049")
    first = api.start(job, ("a", "n1"))
    second = api.start(other, ("b", "n1"), ("c", "n2"))
    stage.run(job, first, output=b"out")
    everything = ok(api.get("/api/jobs/history/"))
    assert everything == [api.inspect(job, first), api.inspect(other, second)]
    assert everything[0]["Result"][0]["Output"] == "out"
    assert ok(api.get("/api/jobs/history?AppName=2049")) == everything[1:]
    assert ok(api.get(f"/api/jobs/history?JobId={job['JobId']}&AppName=")) == everything[:1]
    assert ok(api.get("/api/jobs/history?JobId=x")) == []
    assert ok(stranger.get("/api/jobs/history")) == []
    page = api.get("/api/jobs/history?limit=1")
    assert (ok(page), "cursor=" in page.headers["Link"]) == (everything[:1], True)


@pytest.mark.alone
def test_ten_thousand_executors_stay_fast(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("a", "n1"))
    row = Executor.objects.get()
    values = {
        field.attname: getattr(row, field.attname)
        for field in Executor._meta.concrete_fields
        if field.name != "id"
    }
    began = time.monotonic()
    many = Executor.objects.bulk_create(
        Executor(**{**values, "number": number, "create_time": float(number)}) for number in range(1, 10_001)
    )
    Target.objects.bulk_create(
        Target(executor=item, ordinal=0, container="c", node="n", error="no such node") for item in many
    )
    made = time.monotonic()
    with CaptureQueriesContext(connection) as seen:
        (listed,) = ok(api.get("/api/jobs"))
    assert (len(listed["Executors"]), listed["Executors"][0], listed["Executors"][-1]) == (
        10_001,
        "1",
        executor,
    )
    assert len(seen) <= 5, "whatever the number of executors"
    with CaptureQueriesContext(connection) as seen:
        assert api.inspect(job, "5000")["Result"][0]["E"] == "no such node"
    assert len(seen) <= 5
    assert int(api.start(job, ("a", "n1"))) > 10_000
    history = ok(api.get(f"/api/jobs/history?JobId={job['JobId']}&limit=1000"))
    assert len(history) == 1000
    asked = time.monotonic()
    assert asked - made < 10 * (made - began), f"{asked - made:.1f} s, made in {made - began:.1f} s"


def test_a_start_costs_a_query_for_each_target(api: Api, stage: Stage) -> None:
    job = api.job()

    def count(number: int) -> int:
        with CaptureQueriesContext(connection) as seen:
            api.start(job, *[(f"c{each}", "n1") for each in range(number)])
        return len(seen)

    count(1)
    assert count(101) - count(1) <= 101


def test_inspect_costs_as_many_queries_whatever_its_targets(api: Api, stage: Stage) -> None:
    job = api.job()

    def count(executor: str) -> int:
        with CaptureQueriesContext(connection) as seen:
            api.inspect(job, executor)
        return len(seen)

    small, large = (
        api.start(job, ("a", "n1")),
        api.start(job, *[(f"c{number}", "n1") for number in range(50)]),
    )
    for ordinal in range(5):
        stage.run(job, large, ordinal, output=b"x")
    stage.run(job, small, output=b"x")
    assert count(small) == count(large) <= 4
