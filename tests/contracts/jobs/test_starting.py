"""Starting, inspecting, cancelling, retrying, explaining: documented JSON, the state table, what is refused."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from jobs.models import Executor, Target
from tests.contracts.jobs.conftest import (
    BODY,
    CONTAINER,
    EXEC_ID,
    Api,
    Stage,
    body,
    error,
    near_now,
    ok,
    open_policy,
)
from workers import questions, secrets
from workers.models import LogChunk, Node, NodeRequest, Run, Secret
from workers.specs import ExecSpec
from workers.states import Reason, State

#: What a result has before it is finished.
PLAIN = {"NodeId", "ContainerId", "Status", "JobName", "StartTime", "EndTime"}
LAST = {
    *("ExitCode", "Pid", "Running", "CanRemove", "OpenStdin", "OpenStdout", "OpenStderr", "DetachKeys"),
    *("ContainerID", "ProcessConfig", "Output"),
}


def result(api: Api, job: dict[str, Any], executor: str, ordinal: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = api.inspect(job, executor)["Result"][ordinal]
    return found


def test_a_start_answers_the_job_with_its_new_executor_last(api: Api, stage: Stage) -> None:
    job = api.job()
    started = ok(
        api.post(
            f"/api/jobs/{job['JobId']}/start/",
            {"Target": [{"ContainerId": CONTAINER, "NodeId": "n1", "more": 1}], "x": 1},
        )
    )
    (executor,) = started["Executors"]
    assert started == {**job, "Executors": [executor]}
    assert near_now(int(executor))
    assert ok(api.get("/api/jobs")) == [started]
    found = api.inspect(job, executor)
    assert list(found) == ["JobId", "CreateTime", "Target", "Result"]
    assert int(found["CreateTime"]) == int(executor)
    assert found["Target"] == [{"ContainerId": CONTAINER, "NodeId": "n1"}]
    assert found["Result"] == [
        {
            "NodeId": "n1",
            "ContainerId": CONTAINER,
            "Status": "STARTING",
            "JobName": "上线",
            "StartTime": 0,
            "EndTime": 0,
        }
    ]
    assert Run.objects.get().state == State.PENDING


def test_what_a_worker_is_given(api: Api, stage: Stage) -> None:
    open_policy(api.tenant, exec_privileged=True)
    job = api.job(Cmd="sh -c 'echo \"$0\"'", Privileged=True, SecretArgs=["pass word", "b"])
    executor = api.start(job, ("web", "n1"))
    run = stage.claim(job, executor)
    spec = ExecSpec.from_json(run.spec)
    assert (run.family, run.kind, run.cpu_m, run.mem_mb) == ("jobs", "exec", 0, 0)
    assert (spec.container, spec.argv, spec.user) == ("web", ["sh", "-c", 'echo "$0"'], "root:root")
    assert (spec.env, spec.privileged, spec.working_dir) == ({"a": "b", "c": "d"}, True, "")
    assert spec.selectors == ["gantry.tenant=10002"]
    assert spec.log_head + spec.log_tail == 1024 * 1024 * 1024
    assert secrets.reveal_all(spec.secret_ids) == ["pass word", "b"]
    assert "pass word" not in str(run.spec)
    run_row = Run.objects.get()
    assert run_row.shape.constraints == {"node": ["n1"]}
    (shown,) = ok(api.get("/api/v1/runs"))
    owner = f"/api/jobs/{job['JobId']}/inspect/{executor}"
    assert shown["owner"] == {"id": f"{job['JobId']}/{executor}", "url": f"http://testserver{owner}"}


def test_the_selectors_are_the_policys(api: Api, stage: Stage) -> None:
    open_policy(api.tenant, exec_targets=["team=blue", "public"])
    job = api.job()
    api.start(job, ("web", "n1"))
    assert Run.objects.get().spec["selectors"] == ["team=blue", "public"]


def test_the_life_of_a_target(api: Api, stage: Stage) -> None:
    job = api.job(Cmd="sleep 10", SecretArgs=["x", "yy"])
    executor = api.start(job, ("web", "swarm-2"))
    plain = {"NodeId": "swarm-2", "ContainerId": "web", "JobName": "上线"}

    run = stage.claim(job, executor)
    assert run.spec["container"] == "web"
    found = result(api, job, executor)
    assert found == {**plain, "Status": "STARTING", "StartTime": 0, "EndTime": 0}
    stage.create(run)
    found = result(api, job, executor)
    assert found == {**plain, "Status": "CREATED", "StartTime": 0, "EndTime": 0, "ID": EXEC_ID}
    stage.begin(run)
    stage.write(run, b"half")
    found = result(api, job, executor)
    assert near_now(found.pop("StartTime"))
    assert found == {**plain, "Status": "RUNNING", "EndTime": 0, "ID": EXEC_ID}
    stage.finish(run, code=0)
    found = result(api, job, executor)
    assert set(found) == PLAIN | LAST | {"ID"}
    assert near_now(found.pop("StartTime"))
    assert near_now(found.pop("EndTime"))
    assert found == {
        **plain,
        "Status": "FINISHED",
        "ID": EXEC_ID,
        "ExitCode": 0,
        "Pid": 27396,
        "Running": False,
        "CanRemove": False,
        "OpenStdin": False,
        "OpenStdout": True,
        "OpenStderr": True,
        "DetachKeys": "",
        "ContainerID": CONTAINER,
        "Output": "half",
        "ProcessConfig": {
            "user": "root:root",
            "tty": False,
            "entrypoint": "sleep",
            "arguments": ["10", "*", "**"],
            "privileged": False,
        },
    }


def test_a_nonzero_exit_is_finished(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"))
    stage.run(job, executor, code=3, output=b"no")
    found = result(api, job, executor)
    assert (found["Status"], found["ExitCode"], found["Output"]) == ("FINISHED", 3, "no")
    assert "E" not in found


@pytest.mark.parametrize("created", [False, True])
@pytest.mark.parametrize(
    ("state", "reason", "message"),
    [
        (State.FAILED, Reason.CREATE, "there is no container web on this node"),
        (State.FAILED, Reason.LOST, "Command is gone"),
        (State.FAILED, Reason.TIMEOUT, "Command ran longer than its limit of 3 s and was killed"),
        (State.FAILED, Reason.UNREACHABLE, "node n1 was silent"),
        (State.FAILED, Reason.RUNTIME, "the engine stopped"),
        (State.CANCELLED, Reason.NONE, "Command was killed by request"),
        (State.CANCELLED, Reason.OPERATOR, "Command was killed by an operator"),
    ],
)
def test_failures_say_why(
    api: Api, stage: Stage, created: bool, state: State, reason: Reason, message: str
) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"))
    run = stage.claim(job, executor)
    if created:
        stage.create(run)
    stage.finish(run, state, reason, message)
    found = result(api, job, executor)
    assert set(found) == PLAIN | {"E"} | ({"ID"} if created else set())
    assert (found["Status"], found["E"]) == ("RUNNING_FAILED" if created else "CREATE_FAILED", message)
    log = api.log(job, executor, "ContainerId=web")
    assert (log.status_code, log.getvalue().decode()) == (200, message)


def test_an_unknown_node_fails_at_once_and_the_others_go_on(api: Api, stage: Stage) -> None:
    stage.node("n3", mode=Node.Mode.REMOVED)
    job = api.job()
    executor = api.start(job, ("a", "n1"), ("b", "nowhere"), ("c", "n2"), ("d", "n3"), ("e", "swarm-2"))
    results = api.inspect(job, executor)["Result"]
    assert [item["Status"] for item in results] == [
        *("STARTING", "CREATE_FAILED", "STARTING", "CREATE_FAILED", "STARTING")
    ]
    assert "there is no node nowhere" in results[1]["E"]
    assert "there is no node n3" in results[3]["E"]
    assert set(results[1]) == PLAIN | {"E"}
    assert (results[1]["StartTime"], near_now(results[1]["EndTime"])) == (0, True)
    constraints = [run.shape.constraints for run in Run.objects.order_by("pk")]
    assert constraints == [{"node": ["n1"]}, {"node": ["n2"]}, {"node": ["n2"]}]
    assert api.log(job, executor, "ContainerId=b").getvalue().decode() == results[1]["E"]


def test_privileged_needs_the_policy_and_is_stored_all_the_same(api: Api, stage: Stage) -> None:
    job = api.job(Privileged=True)
    assert job["Privileged"] is True
    executor = api.start(job, ("a", "n1"), ("b", "n2"))
    for found in api.inspect(job, executor)["Result"]:
        assert found["Status"] == "CREATE_FAILED"
        assert "exec_privileged" in found["E"]
    assert not Run.objects.exists()
    open_policy(api.tenant, exec_privileged=True)
    again = api.start(job, ("a", "n1"))
    stage.run(job, again)
    assert result(api, job, again)["ProcessConfig"]["privileged"] is True


@pytest.mark.parametrize(
    "target",
    [
        [],
        {},
        "x",
        ["x"],
        [{"ContainerId": "a"}],
        [{"NodeId": "n1"}],
        [{"ContainerId": "", "NodeId": "n1"}],
        [{"ContainerId": 1, "NodeId": "n1"}],
        [{"ContainerId": "a" * 256, "NodeId": "n1"}],
        [{"ContainerId": "a", "NodeId": "n" * 129}],
        [{"ContainerId": "a", "NodeId": "n1"}] * 1001,
    ],
)
def test_targets_that_are_none(api: Api, stage: Stage, target: Any) -> None:
    job = api.job()
    answer = api.post(f"/api/jobs/{job['JobId']}/start", {"Target": target})
    assert error(answer, 400)[0] == "invalid_Target"
    assert not Executor.objects.exists()


def test_editing_a_job_does_not_change_its_history(api: Api, stage: Stage) -> None:
    job = api.job(Cmd="old 'a b'")
    executor = api.start(job, ("web", "n1"))
    changed = {**BODY, "Name": "new", "Cmd": "new", "User": "0", "Env": [], "SecretArgs": []}
    assert ok(api.put(f"/api/jobs/{job['JobId']}", changed))["Executors"] == [executor]
    assert Secret.objects.count() == 2, "the run that waits still needs them"
    stage.run(job, executor)
    found = result(api, job, executor)
    assert (found["JobName"], found["ProcessConfig"]["user"]) == ("上线", "root:root")
    assert found["ProcessConfig"]["entrypoint"] == "old"
    assert found["ProcessConfig"]["arguments"] == ["a b", "*", "**"]
    assert ok(api.put(f"/api/jobs/{job['JobId']}", changed))["Name"] == "new"
    assert not Secret.objects.exists(), "nothing needs them any more"


def test_a_deleted_jobs_runs_go_on_and_its_history_stays(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"), ("web", "n2"))
    run = stage.claim(job, executor)
    api.send("DELETE", f"/api/jobs/{job['JobId']}")
    assert Run.objects.filter(state=State.RUNNING).count() == 1
    assert Secret.objects.count() == 2
    stage.begin(run)
    stage.write(run, b"out")
    stage.finish(run, code=0)
    assert [item["Status"] for item in api.inspect(job, executor)["Result"]] == ["FINISHED", "STARTING"]
    assert api.log(job, executor, "ContainerId=web").getvalue() == b"out"
    assert len(ok(api.get("/api/jobs/history"))) == 1
    cancelled = ok(api.post(f"/api/jobs/{job['JobId']}/cancel/{executor}"))
    assert (cancelled["JobId"], cancelled["Executors"]) == (job["JobId"], [executor])
    assert result(api, job, executor, 1)["Status"] == "CREATE_FAILED"
    retried = api.post(f"/api/jobs/{job['JobId']}/retry/{executor}")
    assert error(retried, 404) == ("job_id_not_found", job["JobId"])


def test_output_is_the_last_64_kib_and_the_log_is_everything(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"), ("db", "n1"))
    noise = bytes(range(256)) * 3000 + "é".encode()[1:] + b"tail\n"
    stage.run(job, executor, 0, output=noise)
    stage.run(job, executor, 1, output=b"x\xff\xfe\x00y")
    first, second = api.inspect(job, executor)["Result"]
    assert first["Output"] == noise[-65_536:].decode(errors="replace")
    assert first["Output"].endswith("\ufffdtail\n")
    assert second["Output"] == "x\ufffd\ufffd\x00y"
    assert api.log(job, executor, "ContainerId=web").getvalue() == noise


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


def test_ten_thousand_executors_stay_fast(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("a", "n1"))
    row = Executor.objects.get()
    values = {
        field.attname: getattr(row, field.attname)
        for field in Executor._meta.concrete_fields
        if field.name != "id"
    }
    many = Executor.objects.bulk_create(
        Executor(**{**values, "number": number, "create_time": float(number)}) for number in range(1, 10_001)
    )
    Target.objects.bulk_create(
        Target(executor=item, ordinal=0, container="c", node="n", error="no such node") for item in many
    )
    began = time.monotonic()
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
    assert time.monotonic() - began < 20


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


# --- Without Target: the containers of the job's service ------------------------------------------------


class Answering(threading.Thread):
    """The part of the nodes' agents that answers questions, as ``workers.agent`` does."""

    def __init__(self, told: dict[str, Any], *, deaf: str = "") -> None:
        super().__init__(daemon=True)
        self.told, self.deaf = told, deaf
        self.asked: list[dict[str, Any]] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.02):
            for request in NodeRequest.objects.filter(answered_at=None).exclude(node__name=self.deaf):
                self.asked.append(request.payload)
                answer = self.told.get(request.node.name)
                lookups = {"containers": lambda payload: answer} if answer is not None else {}
                questions.answer([request.pk], lambda run_id: (True, ""), lookups)
        connections.close_all()

    def __enter__(self) -> Answering:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.join()


@pytest.mark.django_db(transaction=True)
def test_without_target_the_services_containers_are_found(stage: Stage, api: Api) -> None:
    job = api.job()
    told = {
        "n1": {"containers": [{"id": "c1" * 32, "name": "web.1"}, {"id": "c2" * 32, "name": "web.2"}]},
        "n2": {"containers": [{"id": "c3" * 32, "name": "web.3"}, {"id": "c1" * 32, "name": "web.1"}]},
    }
    stage.node("commands-only", runtimes=["process"])
    with Answering(told) as nodes:
        started = ok(api.post(f"/api/jobs/{job['JobId']}/start", {}, Idempotency_Key="k"))
    assert nodes.asked == [{"service": "2048_2048", "app": "", "selectors": ["gantry.tenant=10002"]}] * 2
    found = api.inspect(job, started["Executors"][-1])
    assert found["Target"] == [
        {"ContainerId": "c1" * 32, "NodeId": "n1"},
        {"ContainerId": "c2" * 32, "NodeId": "n1"},
        {"ContainerId": "c3" * 32, "NodeId": "swarm-2"},
    ]
    assert {item["Status"] for item in found["Result"]} == {"STARTING"}
    with Answering({"n1": {"containers": []}, "n2": {"containers": []}}):
        again = ok(api.post(f"/api/jobs/{job['JobId']}/start", {}, Idempotency_Key="k"))
        assert again == started, "the first answer, whatever the nodes say by now"
        answer = api.post(f"/api/jobs/{job['JobId']}/start", {"Target": None})
        kind, message = error(answer, 409)
    assert (kind, "no running container of service 2048_2048" in message) == ("conflict", True)
    assert Executor.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_nodes_that_cannot_be_asked_are_told_and_asked_again_by_a_retry(
    stage: Stage, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.saved import containers

    monkeypatch.setattr(containers.find, "__defaults__", ((), 0.5))
    job = api.job(ServiceName="")
    stage.node("n4", detached=True)
    stage.node("n5")
    told = {"n1": {"containers": [{"id": "c1" * 32, "name": "web.1"}]}, "n2": {"error": "no engine"}}
    with Answering(told, deaf="n5") as nodes:
        executor = ok(api.post(f"/api/jobs/{job['JobId']}/start"))["Executors"][-1]
    assert nodes.asked[0] == {"service": "", "app": "2048", "selectors": ["gantry.tenant=10002"]}
    first, second, third, fourth = api.inspect(job, executor)["Result"]
    assert (first["ContainerId"], first["Status"]) == ("c1" * 32, "STARTING")
    for item, node, why in (
        (second, "swarm-2", "node n2 cannot tell: no engine"),
        (third, "n4", "node n4 has been silent"),
        (fourth, "n5", "node n5 did not answer within 0.5 s"),
    ):
        assert (item["ContainerId"], item["NodeId"], item["Status"]) == ("", node, "CREATE_FAILED")
        assert item["E"].startswith(why)
        assert item["E"].endswith("whether label app=2048 runs there is not known")
    stage.nodes["n1"] = Node.objects.get(name="n1")
    stage.run(job, executor)
    Node.objects.filter(name="n4").update(mode=Node.Mode.REMOVED)
    told = {"n2": {"containers": [{"id": "c2" * 32, "name": "x"}]}, "n5": {"containers": []}}
    with Answering(told):
        again = ok(api.post(f"/api/jobs/{job['JobId']}/retry/{executor}"))["Executors"][-1]
    assert api.inspect(job, again)["Target"] == [{"ContainerId": "c2" * 32, "NodeId": "swarm-2"}]


def test_no_node_that_can_execute(api: Api) -> None:
    job = api.job()
    Stage.node("n9", runtimes=["process"])
    kind, message = error(api.post(f"/api/jobs/{job['JobId']}/start", {}), 409)
    assert (kind, "no node can execute" in message) == ("conflict", True)
    assert not Executor.objects.exists()


# --- Logs ------------------------------------------------------------------------------------------------


def test_a_log_is_a_file_with_a_dated_name(api: Api, stage: Stage) -> None:
    import re

    job = api.job()
    executor = api.start(job, ("web", "n1"))
    stage.run(job, executor, output=b"\x00\xffline\n" * 100_000)
    for query in ("ContainerId=web", f"ContainerId={CONTAINER}"):
        answer = api.log(job, executor, query)
        assert answer.getvalue() == b"\x00\xffline\n" * 100_000
        assert answer.headers["Content-Type"].startswith("text/plain")
        asked = query.partition("=")[2]
        assert re.fullmatch(
            rf'attachment; filename="job-container-{asked}-\d{{4}}-\d\d-\d\d-\d\d:\d\d:\d\d\.log"',
            answer.headers["Content-Disposition"],
        )
    head = api.send("HEAD", f"/api/jobs/{job['JobId']}/log/{executor}?ContainerId=web")
    assert (head.status_code, head.getvalue()) == (200, b"")


def test_a_log_of_what_runs_is_what_there_is(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"))
    assert api.log(job, executor, "ContainerId=web").getvalue() == b""
    run = stage.claim(job, executor)
    stage.begin(run)
    stage.write(run, b"half")
    assert api.log(job, executor, "ContainerId=web").getvalue() == b"half"


def test_logs_of_containers_that_were_not_meant(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"))
    assert error(api.log(job, executor, ""), 400)[0] == "invalid_ContainerId"
    assert error(api.log(job, executor, "ContainerId="), 400)[0] == "invalid_ContainerId"
    for query in ("ContainerId=db", "ContainerId=we", "ContainerId=web&NodeId=n2"):
        found = error(api.log(job, executor, query), 404)
        assert found == ("container_id_not_found", query.partition("=")[2].partition("&")[0])


def test_of_several_results_of_a_container_the_first_or_that_of_the_node(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"), ("web", "n2"))
    stage.run(job, executor, 0, output=b"one")
    stage.run(job, executor, 1, output=b"two")
    for query, wanted in (("", b"one"), ("&NodeId=", b"one"), ("&NodeId=n1", b"one"), ("&NodeId=n2", b"two")):
        assert api.log(job, executor, f"ContainerId=web{query}").getvalue() == wanted


def test_a_containers_name_cannot_break_out_of_the_header(api: Api, stage: Stage) -> None:
    from urllib.parse import quote

    job = api.job()
    nasty = 'a"; x="\r\nSet-Cookie: b=ü/../'
    executor = api.start(job, (nasty, "n1"))
    answer = api.log(job, executor, f"ContainerId={quote(nasty)}")
    name = answer.headers["Content-Disposition"].removeprefix("attachment; filename=")
    assert name.startswith('"job-container-a___x____Set-Cookie__b___.._-')
    assert "Set-Cookie" not in answer.headers


def test_a_log_leaves_out_the_middle_and_says_so(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"))
    run = stage.run(job, executor, output=b"head")
    LogChunk.objects.create(run_id=run.lease.run_id, attempt=1, stream=1, offset=1000, data=b"tail")
    text = api.log(job, executor, "ContainerId=web").getvalue().decode()
    assert text.startswith("head\n[... 996 bytes left out")
    assert text.endswith("]\ntail")
    assert result(api, job, executor)["Output"] == "headtail"


def test_bodies_that_are_no_objects(api: Api) -> None:
    assert body(api.send("POST", "/api/jobs", b"[1]", "application/json"))["id"] == "invalid_body"
