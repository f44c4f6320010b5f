"""POST /v1/tasks: the seed's requests word for word, every refusal, bodies as old clients send them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.tasks.conftest import Api, count, error, member, spec_of
from workers.models import Run
from workers.tenants import identity, tenancy

#: Both requests of the seed, with its own blanks and tabs.
SEED = Path(__file__).parent / "seed"
RUN_CONTAINER = (SEED / "run_container.json").read_bytes()
RUN_COMMANDS = (SEED / "run_commands.json").read_bytes()

MISSING, MALFORMED, NOT_ALLOWED, MESOS = -2127552257, -2127552007, -2127552256, -2127552017


def accepted(answer: Any) -> int:
    """The taskId of an answer that is exactly the documented one."""
    assert answer.status_code == 200, answer.content
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert body == {"status": 0, "message": "OK", "data": {"taskId": body["data"]["taskId"]}}
    task_id = body["data"]["taskId"]
    assert type(task_id) is int
    assert 0 < task_id < 2**53
    return task_id


def test_the_seeds_run_container(api: Api) -> None:
    task_id = accepted(api.send("POST", "/v1/tasks", RUN_CONTAINER, "application/json"))
    run = Run.objects.get(pk=task_id)
    assert (run.family, run.kind, run.name, run.tenant_id) == (
        "tasks",
        "container",
        "demo-container",
        api.tenant.pk,
    )
    assert run.callback_url == "http://www.XXXXXXXX.com/v5/tasks/callback"
    stored = spec_of(task_id)
    assert stored["image"] == "dockerhub.XXXX.com/demo-slice"
    assert stored["args"] == ["this is a test"]
    assert stored["env"] == {"environment": "dev"}
    assert (stored["network"], stored["force_pull"], stored["privileged"]) == ("BRIDGE", True, False)


def test_the_seeds_run_commands(api: Api) -> None:
    task_id = accepted(api.send("POST", "/v1/tasks", RUN_COMMANDS, "application/json"))
    run = Run.objects.select_related("shape").get(pk=task_id)
    assert (run.kind, run.name, run.priority, run.retries_left) == ("process", "demo-commands", 5, 0)
    assert (run.shape.cpu_m, run.shape.mem_mb, run.shape.constraints) == (1000, 512, {})
    assert run.expires_at is not None
    assert abs((run.expires_at - run.created_at).total_seconds() - 86_400) < 60
    assert spec_of(task_id)["argv"] == ["/bin/sh", "-c", "/home/app/entrypoint.sh"]
    assert spec_of(task_id)["env"] == {"environment": "dev"}


def test_every_field_reaches_the_engine(api: Api) -> None:
    task_id = api.submit(
        resources={"role": "*", "cpu": 2.0, "mem": 2048.0},
        env=[{"name": "A", "value": 1.5}, {"name": "B", "value": "old"}],
        envs=[{"name": "B", "value": True}],
        uris=["http://files.example.com/a.tar.gz"],
        constraints={"field": "RACK_ID", "values": ["r2", "r1"]},
        priority=1.0,
        retry=3.0,
        runMode="COMMAND",
        taskId=99,
        unknown={"a": []},
    )
    run = Run.objects.select_related("shape").get(pk=task_id)
    assert task_id != 99
    assert (run.shape.cpu_m, run.shape.mem_mb) == (2000, 2048)
    assert run.shape.constraints == {"rack_id": ["r1", "r2"]}
    assert (run.priority, run.retries_left) == (1, 3)
    assert spec_of(task_id)["env"] == {"A": "1.5", "B": "true"}
    assert spec_of(task_id)["uris"] == ["http://files.example.com/a.tar.gz"]


@pytest.mark.parametrize(
    ("body", "number", "says"),
    [
        ("", MISSING, "taskName"),
        ("  \n", MISSING, "taskName"),
        ("{}", MISSING, "taskName"),
        ('{"commands":"true"}', MISSING, "taskName"),
        ('{"taskName":" ","commands":"true"}', MISSING, "taskName"),
        ('{"taskName":"a"}', MISSING, "container or commands"),
        ('{"taskName":"a","commands":"","container":{}}', MISSING, "container or commands"),
        ('{"taskName":"a","container":{"docker":{"net":"NONE"}}}', MISSING, "container.docker.image"),
        (
            '{"taskName":"a","commands":"true","constraints":{"field":"rack_id"}}',
            MISSING,
            "constraints.values",
        ),
        ('{"taskName":', MALFORMED, "JSON"),
        ('{"taskName":"a","commands":"true","retry":NaN}', MALFORMED, "NaN"),
        ("[" * 100_000, MALFORMED, "nested"),
        ("[]", MALFORMED, "object"),
        ('"text"', MALFORMED, "object"),
        ('{"taskName":"a","commands":"true","args":"x"}', MALFORMED, "args"),
        ('{"taskName":"a","commands":"true","env":{"A":"b"}}', MALFORMED, "env"),
        ('{"taskName":"a","commands":"true","callbackUrl":"ftp://x/"}', NOT_ALLOWED, "callbackUrl"),
        ('{"taskName":"a","commands":"true","uris":["file:///etc/passwd"]}', NOT_ALLOWED, "uris[0]"),
        (
            '{"taskName":"a","commands":"true","constraints":{"field":"zone","values":["z"]}}',
            NOT_ALLOWED,
            "constraints.field",
        ),
        ('{"taskName":"a","commands":"true","container":{"docker":{"image":"b"}}}', NOT_ALLOWED, "both"),
        ('{"taskName":"a","container":{"type":"MESOS","docker":{"image":"b"}}}', MESOS, "MESOS"),
        (
            '{"taskName":"a","container":{"docker":{"image":"b","privileged":true}}}',
            NOT_ALLOWED,
            "container.docker.privileged",
        ),
        (
            '{"taskName":"a","container":{"docker":{"image":"b","net":"HOST"}}}',
            NOT_ALLOWED,
            "container.docker.net",
        ),
        (
            '{"taskName":"a","container":{"docker":{"image":"b"},"volumes":[{"containerPath":"/a","hostPath":"/"}]}}',
            NOT_ALLOWED,
            "container.volumes",
        ),
        (
            '{"taskName":"a","container":{"docker":{"image":"b","portMappings":[{"containerPort":1,"hostPort":2}]}}}',
            NOT_ALLOWED,
            "hostPort",
        ),
    ],
)
def test_refusals_name_the_field_and_create_nothing(api: Api, body: str, number: int, says: str) -> None:
    found, message = error(api.send("POST", "/v1/tasks", body, "application/json"), 400)
    assert found == number
    assert says in message
    assert count() == 0


def test_a_nul_or_half_a_character_cannot_be_stored(api: Api) -> None:
    for text in ("a\\u0000b", "a\\ud800b"):
        body = f'{{"taskName":"{text}","commands":"true"}}'
        assert error(api.send("POST", "/v1/tasks", body, "application/json"), 400)[0] in (
            MALFORMED,
            NOT_ALLOWED,
        )
        body = f'{{"taskName":"a","commands":"true","env":{{"name":"A","value":"{text}"}}}}'
        assert error(api.send("POST", "/v1/tasks", body, "application/json"), 400)[0] in (
            MALFORMED,
            NOT_ALLOWED,
        )
    assert count() == 0


def test_what_an_operator_opens_is_taken(api: Api) -> None:
    tenancy.update_tenant(api.tenant.name, opened={"privileged": True, "commands": False})
    box = {"docker": {"image": "busybox", "privileged": True}}
    task_id = accepted(api.post("/v1/tasks", {"taskName": "a", "container": box}))
    assert spec_of(task_id)["privileged"] is True
    number, message = error(api.post("/v1/tasks", {"taskName": "a", "commands": "true"}), 400)
    assert (number, "commands" in message) == (NOT_ALLOWED, True)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=UTF-8",
        "application/json;charset=utf-8",
        "text/plain",
        "text/plain; charset=utf-8",
        "application/octet-stream",
        "application/x-www-form-urlencoded",  # curl -d
        "",
    ],
)
def test_json_bodies_as_old_clients_send_them(api: Api, content_type: str) -> None:
    body = '{"taskName":"Ünïcode","commands":"echo ä"}'.encode()
    task_id = accepted(api.send("POST", "/v1/tasks", body, content_type))
    assert api.task(task_id)["taskName"] == "Ünïcode"
    assert api.task(task_id)["commands"] == "echo ä"


def test_another_charset_is_decoded_as_it_says(api: Api) -> None:
    body = '{"taskName":"任务","commands":"true"}'
    for charset in ("gbk", "utf-16"):
        sent = api.send("POST", "/v1/tasks", body.encode(charset), f"application/json; charset={charset}")
        assert api.task(accepted(sent))["taskName"] == "任务"


def test_a_byte_order_mark_does_no_harm(api: Api) -> None:
    accepted(api.send("POST", "/v1/tasks", b"\xef\xbb\xbf" + RUN_COMMANDS, "application/json"))


def test_a_trailing_slash_is_the_same_path(api: Api) -> None:
    accepted(api.send("POST", "/v1/tasks/", RUN_COMMANDS, "application/json"))


def test_accept_is_ignored(api: Api) -> None:
    accepted(api.send("POST", "/v1/tasks", RUN_COMMANDS, "application/json", Accept="text/html"))


def test_x_tenant_id_names_the_tenant(api: Api) -> None:
    tenancy.create_tenant("10004")
    tenancy.add_member("10004", "ann")
    mine = accepted(api.send("POST", "/v1/tasks", RUN_COMMANDS, "application/json"))
    other = accepted(api.send("POST", "/v1/tasks", RUN_COMMANDS, "application/json", X_Tenant_Id="10004"))
    assert [task["taskId"] for task in api.tasks(mine, other)] == [mine]
    answer = api.get(f"/v1/tasks?taskIds={mine},{other}", X_Tenant_Id="10004").json()["data"]
    assert [(task["taskId"], task["tenantId"]) for task in answer] == [(other, "10004")]


@pytest.mark.parametrize("tenant", ["10003", "nobody"])
def test_a_tenant_of_others_and_one_that_is_not_there_are_the_same(
    api: Api, stranger: Api, tenant: str
) -> None:
    answer = api.send("POST", "/v1/tasks", RUN_COMMANDS, "application/json", X_Tenant_Id=tenant)
    number, message = error(answer, 403)
    assert number == -2127560624
    assert "X-Tenant-Id" in message
    assert tenant not in message
    assert count() == 0


def test_the_same_idempotency_key_and_body_create_one_task(api: Api) -> None:
    first = accepted(api.send("POST", "/v1/tasks", RUN_COMMANDS, "application/json", Idempotency_Key="k1"))
    again = accepted(api.send("POST", "/v1/tasks/", RUN_COMMANDS, "application/json", Idempotency_Key="k1"))
    other = accepted(api.send("POST", "/v1/tasks", RUN_COMMANDS, "application/json", Idempotency_Key="k2"))
    assert first == again != other
    number, message = error(
        api.send("POST", "/v1/tasks", RUN_CONTAINER, "application/json", Idempotency_Key="k1"), 409
    )
    assert number == -2127560592
    assert "Idempotency-Key" in message
    assert count() == 2


def test_a_refused_submission_does_not_use_its_key_up(api: Api) -> None:
    error(api.post("/v1/tasks", {"taskName": "a"}, Idempotency_Key="k1"), 400)
    accepted(api.post("/v1/tasks", {"taskName": "a", "commands": "true"}, Idempotency_Key="k1"))


def test_an_idempotency_key_belongs_to_its_tenant(api: Api, stranger: Api) -> None:
    body = {"taskName": "a", "commands": "true"}
    mine = accepted(api.post("/v1/tasks", body, Idempotency_Key="k1"))
    theirs = accepted(stranger.post("/v1/tasks", body, Idempotency_Key="k1"))
    assert mine != theirs


def test_a_read_token_may_not_submit(api: Api) -> None:
    reader = member("10002", "eve", "read")
    assert error(reader.post("/v1/tasks", {"taskName": "a", "commands": "true"}), 403)[0] == -2127560624
    assert reader.tasks(api.submit())
    assert count() == 1


def test_a_submission_costs_two_statements_and_one_when_its_shape_is_known(
    api: Api, remembered: None, django_assert_max_num_queries: Any
) -> None:
    api.submit()
    identity.forget()
    api.submit()
    with django_assert_max_num_queries(4):  # the insert within its savepoint, and the shape's look-up
        api.submit()


def test_the_answer_is_json_without_blanks(api: Api) -> None:
    answer = api.send("POST", "/v1/tasks", RUN_COMMANDS, "application/json")
    assert answer.content == json.dumps(answer.json(), separators=(",", ":")).encode()
