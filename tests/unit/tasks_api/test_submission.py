"""POST /v1/tasks, pure: every field, default and clamp of ``tasks_api.submission.parse``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks_api.submission import parse
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.specs import ContainerSpec, ProcessSpec

COMMANDS = frozenset({"commands"})
EVERYTHING = frozenset({"commands", "privileged", "host_network", "host_ports", "volumes", "parameters"})


def task(**fields: Any) -> dict[str, Any]:
    return {"taskName": "demo", "commands": "true", **fields}


def container(volumes: Any = None, **docker: Any) -> dict[str, Any]:
    box: dict[str, Any] = {"docker": {"image": "busybox", **docker}}
    if volumes is not None:
        box["volumes"] = volumes
    return {"taskName": "demo", "container": box}


def process(body: dict[str, Any]) -> ProcessSpec:
    spec = parse(body, COMMANDS).spec
    assert isinstance(spec, ProcessSpec)
    return spec


def boxed(body: dict[str, Any], allowed: frozenset[str] = COMMANDS) -> ContainerSpec:
    spec = parse(body, allowed).spec
    assert isinstance(spec, ContainerSpec)
    return spec


def test_the_seeds_commands_example() -> None:
    found = parse(
        json.loads("""{
            "callbackUrl":"http://www.XXXXXXXX.com/v5/tasks/callback",
            "taskName":"demo-commands",
            "env":{"name":"environment","value":"dev"},
            "commands":"/home/app/entrypoint.sh"
        }"""),
        COMMANDS,
    )
    assert found.name == "demo-commands"
    assert found.callback_url == "http://www.XXXXXXXX.com/v5/tasks/callback"
    assert found.spec == ProcessSpec(
        argv=["/bin/sh", "-c", "/home/app/entrypoint.sh"], env={"environment": "dev"}, cpu_m=1000, mem_mb=512
    )
    assert (found.priority, found.retries, found.constraints) == (5, 0, {})


def test_the_seeds_container_example() -> None:
    found = parse(
        json.loads("""{
            "callbackUrl":"http://www.XXXXXXXX.com/v5/tasks/callback",
            "taskName":"demo-container",
            "env":{"name":"environment","value":"dev"},
            "args":["this is a test"],
            "container":{
                "docker":{
                    "image":"dockerhub.XXXX.com/demo-slice"
                },
                "type":"DOCKER"
            }
        }"""),
        COMMANDS,
    )
    assert found.spec == ContainerSpec(
        image="dockerhub.XXXX.com/demo-slice",
        args=["this is a test"],
        env={"environment": "dev"},
        cpu_m=1000,
        mem_mb=512,
        network="BRIDGE",
        force_pull=True,
        privileged=False,
    )


@pytest.mark.parametrize(
    ("resources", "cpu_m", "mem_mb"),
    [
        (None, 1000, 512),
        ({}, 1000, 512),
        ({"role": "*"}, 1000, 512),
        ({"cpu": None, "mem": None}, 1000, 512),
        ({"cpu": 2.0, "mem": 2048.0}, 2000, 2048),
        ({"cpu": "0.5", "mem": "300"}, 500, 300),
        ({"cpu": 0.0, "mem": 0}, 100, 256),
        ({"cpu": -1, "mem": -1}, 100, 256),
        ({"cpu": 99, "mem": 99999}, 16000, 16384),
        ({"cpu": 1e300 * 10, "mem": 10**400}, 16000, 16384),
        ({"cpu": 0.1234, "mem": 512.2}, 123, 513),
    ],
)
def test_resources_have_defaults_and_are_clamped(resources: Any, cpu_m: int, mem_mb: int) -> None:
    spec = process(task(resources=resources))
    assert (spec.cpu_m, spec.mem_mb) == (cpu_m, mem_mb)


@pytest.mark.parametrize(
    ("fields", "env"),
    [
        ({}, {}),
        ({"env": None}, {}),
        ({"env": {}}, {}),
        ({"env": []}, {}),
        ({"env": False, "envs": None}, {}),
        ({"env": {"name": "A", "value": "b"}}, {"A": "b"}),
        ({"env": [{"name": "A", "value": "b"}, {"name": "C", "value": ""}]}, {"A": "b", "C": ""}),
        ({"envs": [{"name": "A", "value": "b"}]}, {"A": "b"}),
        ({"envs": {"name": "A", "value": "b"}}, {"A": "b"}),
        (
            {
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "envs": [{"name": "A", "value": "3"}],
            },
            {"A": "3", "B": "2"},
        ),
        ({"env": {"name": "A", "value": 8080}}, {"A": "8080"}),
        ({"env": {"name": "A", "value": 0.5}}, {"A": "0.5"}),
        ({"env": {"name": "A", "value": True}}, {"A": "true"}),
        ({"env": {"name": "A", "value": False}}, {"A": "false"}),
        ({"env": {"name": "A", "value": "b", "more": 1}}, {"A": "b"}),
    ],
)
def test_env_in_its_three_spellings(fields: dict[str, Any], env: dict[str, str]) -> None:
    assert process(task(**fields)).env == env
    assert boxed({**container(), **fields}).env == env


def test_an_empty_argument_is_an_argument() -> None:
    given = ["sh", "-c", 'printf "<%s>" "$@"', "x", "", " ", "a b"]
    spec = parse({**container(), "args": given}, COMMANDS).spec
    assert isinstance(spec, ContainerSpec)
    assert spec.args == given


def test_a_number_that_is_none_is_no_name() -> None:
    for number in (json.loads("1e400"), json.loads("-1e400"), float("nan")):
        with pytest.raises(InvalidInput, match="taskName is a number that is too large"):
            parse(task(taskName=number), COMMANDS)
    assert parse(task(taskName=2048.5), COMMANDS).name == "2048.5"


@pytest.mark.parametrize("args", [None, [], False, {}])
def test_no_args(args: Any) -> None:
    assert boxed({**container(), "args": args}).args == []


def test_args_belong_to_containers_and_become_text() -> None:
    assert boxed({**container(), "args": ["a", 1, 2.5, True]}).args == ["a", "1", "2.5", "true"]
    assert process(task(args=["ignored"])).argv == ["/bin/sh", "-c", "true"]


@pytest.mark.parametrize(
    "body",
    [
        container(privileged=False, net="BRIDGE", parameters=[], portMappings=[]),
        container(volumes=[], privileged=None, net="", parameters=None, portMappings=None),
        container(volumes=False, parameters=False, portMappings=False, forcePullImage=None),
        container(portMappings=[{"containerPort": 80.0, "hostPort": 0.0, "protocol": "TCP"}]),
        container(net="none"),
    ],
)
def test_what_is_empty_false_or_null_uses_nothing(body: dict[str, Any]) -> None:
    spec = boxed(body, frozenset())
    assert not spec.privileged
    assert spec.force_pull
    assert spec.volumes == []
    assert spec.parameters == []


def test_a_container_with_everything() -> None:
    spec = boxed(
        container(
            [
                {"containerPath": "/data", "hostPath": "/srv/data", "dvo": "RO"},
                {"containerPath": "/out", "hostPath": "/srv/out", "mode": "rw"},
                {"containerPath": "/tmp/x", "hostPath": "/srv/x"},
            ],
            forcePullImage=False,
            privileged=True,
            net="HOST",
            parameters=[{"key": "hostname", "value": "box"}],
            portMappings=[{"containerPort": 80, "hostPort": 8080, "protocol": "udp"}],
        ),
        EVERYTHING,
    )
    assert spec == ContainerSpec(
        image="busybox",
        network="HOST",
        force_pull=False,
        privileged=True,
        ports=[{"container_port": 80, "host_port": 8080, "protocol": "udp"}],
        volumes=[
            {"container_path": "/data", "host_path": "/srv/data", "mode": "RO"},
            {"container_path": "/out", "host_path": "/srv/out", "mode": "RW"},
            {"container_path": "/tmp/x", "host_path": "/srv/x", "mode": "RW"},
        ],
        parameters=[{"key": "hostname", "value": "box"}],
    )


@pytest.mark.parametrize(
    ("given_field", "field"), [("RACK_ID", "rack_id"), ("hostname", "hostname"), (" HostName ", "hostname")]
)
def test_constraints(given_field: str, field: str) -> None:
    found = parse(task(constraints={"field": given_field, "values": ["r2", "r1", "r2", 7]}), COMMANDS)
    assert found.constraints == {field: ["7", "r1", "r2"]}


@pytest.mark.parametrize("constraints", [None, {}, [], False])
def test_no_constraints(constraints: Any) -> None:
    assert parse(task(constraints=constraints), COMMANDS).constraints == {}


@pytest.mark.parametrize(
    ("given_priority", "priority"),
    [
        (1, 1),
        (1.0, 1),
        ("1", 1),
        (0, 5),
        (2, 5),
        (-1, 5),
        (True, 5),
        (None, 5),
        ("high", 5),
        ({}, 5),
        ([1], 5),
    ],
)
def test_priority_1_is_high_and_anything_else_normal(given_priority: Any, priority: int) -> None:
    assert parse(task(priority=given_priority), COMMANDS).priority == priority


@pytest.mark.parametrize(
    ("given_retry", "retries"),
    [(None, 0), (0, 0), (3, 3), (3.0, 3), ("2", 2), (-5, 0), (100, 100), (10**9, 100), (10**400, 100)],
)
def test_retry_is_clamped(given_retry: Any, retries: int) -> None:
    assert parse(task(retry=given_retry), COMMANDS).retries == retries


@pytest.mark.parametrize(
    "url", [None, "", "  ", "http://a/b?c=d", "HTTPS://[::1]:8443/x", "http://10.0.0.1/cb"]
)
def test_callback_urls_that_are_taken(url: Any) -> None:
    assert parse(task(callbackUrl=url), COMMANDS).callback_url == (url or "").strip()


def test_uris_are_kept_in_order() -> None:
    uris = ["https://b/2.tar.gz", "http://a/1"]
    assert process(task(uris=uris)).uris == uris


def test_unknown_fields_run_mode_and_task_id_are_ignored() -> None:
    assert parse(task(runMode="CONTAINER", taskId=5, expire={"a": 1}, nonsense=[1]), COMMANDS) == parse(
        task(), COMMANDS
    )


def test_commands_are_kept_as_they_are() -> None:
    text = " echo 'ä\n  two' \n"
    assert process(task(commands=text)).argv == ["/bin/sh", "-c", text]
    assert len(process(task(commands="x" * 131071)).argv[2]) == 131071
