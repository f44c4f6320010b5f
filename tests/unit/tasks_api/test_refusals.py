"""POST /v1/tasks, pure: what is refused, with which number, and that the message names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks_api import codes, wire
from tasks_api.submission import parse
from tests.unit.tasks_api.test_submission import COMMANDS, EVERYTHING, container, task
from workers.vocabulary.errors import InvalidInput


def refused(body: object, allowed: frozenset[str] = COMMANDS) -> tuple[int, str]:
    """The number and message of the refusal; the message must name the field."""
    with pytest.raises(InvalidInput) as caught:
        parse(body, allowed)
    error = caught.value
    assert error.field is None or error.field.partition("[")[0].rpartition(".")[2] in error.message
    return codes.number(400, error.code), error.message


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ("A=s3cret", "env is text"),
        ([["A", "b"]], "env[0] is a list"),
        ({"A": "b"}, "env has no name"),
        ({"name": "A"}, "env ('A') has no value"),
        ({"name": " ", "value": "b"}, "env has no name"),
        ({"name": "A=s3cret", "value": "b"}, "has \"=\" after 'A'"),
        (["A=s3cret"], "env[0] is text"),
        ({"name": ["A"], "value": "b"}, "env.name is a list"),
        ([{"name": "A", "value": {"b": 1}}], "env[0].value is an object"),
        (7, "env is a number"),
    ],
)
def test_a_malformed_env_is_refused_and_its_value_never_shown(env: Any, says: str) -> None:
    number, message = refused(task(env=env))
    assert number == codes.MALFORMED
    assert says in message
    assert "s3cret" not in message


def test_the_value_of_a_variable_never_stands_in_a_message() -> None:
    for value in ("s3cret\x00", "s3cret\ud800", "s3cret" * 30_000):
        assert "s3cret" not in refused(task(env={"name": "PASSWORD", "value": value}))[1]


@pytest.mark.parametrize("args", ["text", 5, {"a": 1}, [["x"]], [{"x": 1}], [None], [1e400]])
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
        (task(uris="http://a/b"), codes.MALFORMED, "uris is text"),
        (task(uris=["ftp://a/b"]), codes.NOT_ALLOWED, "uris[0] must be an http:// or https:// URL"),
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
        (task(callbackUrl="https://ann@a/"), codes.NOT_ALLOWED, "callbackUrl has a user name or password"),
        (task(callbackUrl="https://ann:s3cret@a/"), codes.NOT_ALLOWED, "leave them out"),
        (task(callbackUrl=["http://a/"]), codes.MALFORMED, "callbackUrl is a list"),
    ],
)
def test_refusals(body: object, number: int, says: str) -> None:
    found, message = refused(body)
    assert found == number
    assert says in message


@pytest.mark.parametrize(
    "fields",
    [
        {"uris": ["s3cret"]},
        {"uris": "http://ann:s3cret@a/x"},
        {"uris": ["http://ann:s3/s3cret@a b/"]},
        {"uris": [["s3cret"]]},
        {"callbackUrl": "http://ann:s3cret@a/x?token=s3cret"},
        {"callbackUrl": "http://a:99999/?token=s3cret"},
        {"callbackUrl": {"url": "s3cret"}},
        {"args": "s3cret"},
        {"args": ["a", {"s3cret": "s3cret"}]},
        {"env": [["s3cret"]]},
        {"envs": ["s3cret"]},
        {"envs": {"value": "s3cret"}},
    ],
)
def test_nothing_that_may_be_a_secret_is_quoted(fields: dict[str, Any]) -> None:
    assert "s3" not in refused(task(**fields))[1]


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
