"""Starting and inspecting: documented JSON, the state table, what is refused, what the worker is given."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.models import Executor
from tests.contracts.jobs.conftest import (
    BODY,
    CONTAINER,
    EXEC_ID,
    Api,
    Stage,
    error,
    near_now,
    ok,
    open_policy,
)
from workers import secrets
from workers.models import Node, Run, Secret
from workers.vocabulary.specs import ExecSpec
from workers.vocabulary.states import Reason, State

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
    ran = created and reason != Reason.CREATE
    assert (found["Status"], found["E"]) == ("RUNNING_FAILED" if ran else "CREATE_FAILED", message)
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
