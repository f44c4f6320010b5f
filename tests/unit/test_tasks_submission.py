"""POST /v1/tasks, pure: every field, default, clamp and refusal of ``tasks_api.submission.parse``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks_api import codes, wire
from tasks_api.submission import parse
from workers.errors import InvalidInput
from workers.specs import ContainerSpec, ProcessSpec

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


def refused(body: object, allowed: frozenset[str] = COMMANDS) -> tuple[int, str]:
    """The number and message of the refusal; the message must name the field."""
    with pytest.raises(InvalidInput) as caught:
        parse(body, allowed)
    error = caught.value
    assert error.field is None or error.field.partition("[")[0].rpartition(".")[2] in error.message
    return codes.number(400, error.code), error.message


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


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ("A=b", "env is the text 'A=b'"),
        ([["A", "b"]], "env[0] is a list"),
        ({"A": "b"}, "env has no name"),
        ({"name": "A"}, "env ('A') has no value"),
        ({"name": " ", "value": "b"}, "env has no name"),
        ({"name": "A=B", "value": "b"}, 'must not contain "="'),
        ({"name": ["A"], "value": "b"}, "env.name is a list"),
        ([{"name": "A", "value": {"b": 1}}], "env[0].value is an object"),
        (7, "env is the number 7"),
    ],
)
def test_a_malformed_env_is_refused_and_its_value_never_shown(env: Any, says: str) -> None:
    number, message = refused(task(env=env))
    assert number == codes.MALFORMED
    assert says in message


def test_the_value_of_a_variable_never_stands_in_a_message() -> None:
    for value in ("s3cret\x00", "s3cret\ud800", "s3cret" * 30_000):
        assert "s3cret" not in refused(task(env={"name": "PASSWORD", "value": value}))[1]


@pytest.mark.parametrize("args", [None, [], False, {}])
def test_no_args(args: Any) -> None:
    assert boxed({**container(), "args": args}).args == []


def test_args_belong_to_containers_and_become_text() -> None:
    assert boxed({**container(), "args": ["a", 1, 2.5, True]}).args == ["a", "1", "2.5", "true"]
    assert process(task(args=["ignored"])).argv == ["/bin/sh", "-c", "true"]


@pytest.mark.parametrize("args", ["text", 5, {"a": 1}, [["x"]], [{"x": 1}], [None], [""], ["a", " "]])
def test_malformed_args(args: Any) -> None:
    assert refused({**container(), "args": args})[0] == codes.MALFORMED
    assert refused(task(args=args))[0] == codes.MALFORMED


@pytest.mark.parametrize(
    ("body", "number", "says"),
    [
        (None, codes.MISSING, "body is empty"),
        ({}, codes.MISSING, "taskName"),
        ([], codes.MALFORMED, "must be a JSON object"),
        ("x", codes.MALFORMED, "must be a JSON object"),
        (3, codes.MALFORMED, "must be a JSON object"),
        (task(taskName=None), codes.MISSING, "taskName"),
        (task(taskName=" \t"), codes.MISSING, "taskName"),
        (task(taskName={"a": 1}), codes.MALFORMED, "taskName is an object"),
        (task(taskName="x" * 256), codes.NOT_ALLOWED, "taskName has 256 characters"),
        (task(taskName="a\x00b"), codes.NOT_ALLOWED, "NUL"),
        (task(taskName="a\ud800"), codes.NOT_ALLOWED, "surrogate"),
        ({"taskName": "a"}, codes.MISSING, "container or commands is missing"),
        (task(commands="  "), codes.MISSING, "container or commands is missing"),
        (task(commands=None), codes.MISSING, "container or commands is missing"),
        (task(commands=["true"]), codes.MALFORMED, "commands is a list"),
        (task(commands="x" * 131072), codes.NOT_ALLOWED, "131072 bytes"),
        ({"taskName": "a", "container": {}}, codes.MISSING, "container or commands is missing"),
        (
            {"taskName": "a", "container": {"type": "DOCKER"}},
            codes.MISSING,
            "container or commands is missing",
        ),
        ({"taskName": "a", "container": "busybox"}, codes.MALFORMED, "container is the text 'busybox'"),
        ({"taskName": "a", "container": {"docker": "busybox"}}, codes.MALFORMED, "container.docker"),
        (container(image=" "), codes.MISSING, "container.docker.image"),
        (container(image=None, net="NONE"), codes.MISSING, "container.docker.image"),
        ({**task(), **container()}, codes.NOT_ALLOWED, "both container and commands"),
        ({"taskName": "a", "container": {"type": "MESOS"}}, codes.UNSUPPORTED, "MESOS"),
        (task(container={"type": "mesos"}), codes.UNSUPPORTED, "MESOS"),
        (
            {"taskName": "a", "container": {"type": "MESOS", "docker": {"image": "x"}}},
            codes.UNSUPPORTED,
            "use DOCKER",
        ),
        (
            {"taskName": "a", "container": {"type": "PODMAN", "docker": {"image": "x"}}},
            codes.NOT_ALLOWED,
            "container.type is 'PODMAN'",
        ),
        (container(net="OVERLAY"), codes.NOT_ALLOWED, "container.docker.net is 'OVERLAY'"),
        (container(privileged="maybe"), codes.MALFORMED, "true or false"),
        (container(portMappings=[{"hostPort": 0}]), codes.NOT_ALLOWED, "containerPort"),
        (container(portMappings=[{"containerPort": 70000}]), codes.NOT_ALLOWED, "70000"),
        (container(portMappings=[{"containerPort": 80, "protocol": "icmp"}]), codes.NOT_ALLOWED, "icmp"),
        (container(portMappings=[80]), codes.MALFORMED, "portMappings[0] is the number 80"),
        (task(resources=[1]), codes.MALFORMED, "resources is a list"),
        (task(resources={"cpu": "many"}), codes.MALFORMED, "resources.cpu is the text 'many'"),
        (task(resources={"cpu": "nan"}), codes.MALFORMED, "resources.cpu"),
        (task(resources={"mem": True}), codes.MALFORMED, "resources.mem is true"),
        (task(constraints={"values": ["r1"]}), codes.MISSING, "constraints.field"),
        (task(constraints={"field": "zone", "values": ["r1"]}), codes.NOT_ALLOWED, "rack_id or hostname"),
        (task(constraints={"field": "rack_id"}), codes.MISSING, "constraints.values"),
        (task(constraints={"field": "rack_id", "values": []}), codes.MISSING, "constraints.values"),
        (
            task(constraints={"field": "rack_id", "values": ["r1", " "]}),
            codes.NOT_ALLOWED,
            "values[1] is blank",
        ),
        (task(constraints={"field": "rack_id", "values": "r1"}), codes.MALFORMED, "constraints.values"),
        (task(constraints="rack_id=r1"), codes.MALFORMED, "constraints is the text"),
        (task(retry="often"), codes.MALFORMED, "retry is the text 'often'"),
        (task(retry=1.5), codes.NOT_ALLOWED, "whole number"),
        (task(uris="http://a/b"), codes.MALFORMED, "uris is the text"),
        (task(uris=["ftp://a/b"]), codes.NOT_ALLOWED, "uris[0] is 'ftp://a/b'"),
        (task(uris=["file:///etc/passwd"]), codes.NOT_ALLOWED, "uris[0]"),
        (task(uris=["http://a/b", ""]), codes.MISSING, "uris[1]"),
        (task(uris=["http://a/b"] * 101), codes.NOT_ALLOWED, "at most 100"),
        (task(callbackUrl="ftp://a/b"), codes.NOT_ALLOWED, "callbackUrl"),
        (task(callbackUrl="www.example.com"), codes.NOT_ALLOWED, "callbackUrl"),
        (task(callbackUrl="http://"), codes.NOT_ALLOWED, "callbackUrl"),
        (task(callbackUrl="http://[::1"), codes.NOT_ALLOWED, "callbackUrl"),
        (task(callbackUrl="http://a:99999/"), codes.NOT_ALLOWED, "callbackUrl"),
        (task(callbackUrl="http://a b/"), codes.NOT_ALLOWED, "callbackUrl"),
        (task(callbackUrl="http://a/\r\nX: y"), codes.NOT_ALLOWED, "callbackUrl"),
        (task(callbackUrl="http://a/" + "x" * 2048), codes.NOT_ALLOWED, "at most 2048"),
        (task(callbackUrl=["http://a/"]), codes.MALFORMED, "callbackUrl is a list"),
    ],
)
def test_refusals(body: object, number: int, says: str) -> None:
    found, message = refused(body)
    assert found == number
    assert says in message


@pytest.mark.parametrize(
    ("body", "policy"),
    [
        (container(privileged=True), "privileged"),
        (container(privileged="true"), "privileged"),
        (container(net="host"), "host_network"),
        (container(parameters=[{"key": "hostname", "value": "x"}]), "parameters"),
        (container(portMappings=[{"containerPort": 80, "hostPort": 8080}]), "host_ports"),
        (container(volumes=[{"containerPath": "/a", "hostPath": "/b"}]), "volumes"),
        (task(), "commands"),
    ],
)
def test_dangerous_things_need_the_tenants_policy(body: dict[str, Any], policy: str) -> None:
    number, message = refused(body, EVERYTHING - {policy})
    assert number == codes.NOT_ALLOWED
    assert policy in message
    assert "operator" in message
    parse(body, EVERYTHING)


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
    "volume",
    [
        {"hostPath": "/b"},
        {"containerPath": "/a"},
        {"containerPath": "a", "hostPath": "/b"},
        {"containerPath": "/a", "hostPath": "named"},
        {"containerPath": "/a", "hostPath": "/b", "mode": "rx"},
    ],
)
def test_a_volume_is_two_absolute_paths_and_a_known_mode(volume: dict[str, str]) -> None:
    refused(container([volume]), EVERYTHING)


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


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = st.sampled_from(
    [
        *("taskName", "commands", "env", "envs", "args", "uris"),
        *("constraints", "priority", "retry", "resources", "callbackUrl", "container"),
    ]
)


@given(st.dictionaries(_FIELDS, _JSON, max_size=5), _JSON)
def test_whatever_arrives_is_taken_or_refused_with_a_reason(fields: dict[str, Any], docker: Any) -> None:
    for body in (task(**fields), {**fields, "taskName": "x", "container": {"docker": docker}}, docker):
        try:
            found = parse(body, EVERYTHING)
        except InvalidInput as error:
            message = wire.render_error(400, error.code, error.message, error.field)
            json.dumps(message).encode()
            continue
        json.dumps(found.spec.to_json(), ensure_ascii=False).encode()
        assert "\x00" not in found.name
