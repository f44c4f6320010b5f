"""The OpenAPI document of the family agrees with what is read and written by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from rest_framework import serializers as drf
from rest_framework.parsers import JSONParser

from tasks_api import schema, serializers, wire
from tasks_api.submission import parse
from tests.contracts.tasks.conftest import Api
from tests.contracts.tasks.test_submit import RUN_COMMANDS, RUN_CONTAINER
from tests.unit.tasks_api.test_status import ended, facts
from workers.vocabulary.states import State

EVERYTHING = frozenset({"commands", "privileged", "host_network", "host_ports", "volumes", "parameters"})

#: A submission with every object that the reader may look into.
FULL: dict[str, Any] = {
    "taskName": "a",
    "resources": {"cpu": 1},
    "env": {"name": "A", "value": "b"},
    "envs": [{"name": "A", "value": "b"}],
    "constraints": {"field": "rack_id", "values": ["r1"]},
    "container": {
        "docker": {
            "image": "b",
            "parameters": [{"key": "env", "value": "a=b"}],
            "portMappings": [{"containerPort": 1, "hostPort": 1}],
        },
        "volumes": [{"containerPath": "/a", "hostPath": "/b"}],
    },
}


class Watched(dict[str, Any]):
    """A dictionary that remembers which keys were asked for, with the path to each."""

    def __init__(self, value: dict[str, Any], path: str, seen: set[str]) -> None:
        super().__init__({key: self._watch(inner, f"{path}{key}.", seen) for key, inner in value.items()})
        self.path, self.seen = path, seen

    @classmethod
    def _watch(cls, value: Any, path: str, seen: set[str]) -> Any:
        if isinstance(value, dict):
            return cls(value, path, seen)
        return [cls._watch(item, path, seen) for item in value] if isinstance(value, list) else value

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(f"{self.path}{key}")
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.seen.add(f"{self.path}{key}")
        return super().__getitem__(key)


def documented(serializer: Any, path: str = "") -> Iterator[str]:
    """Every field of a serializer with its path."""
    for name, field in serializer.get_fields().items():
        yield f"{path}{name}"
        inner = getattr(field, "child", field)
        if isinstance(inner, drf.Serializer):
            yield from documented(inner, f"{path}{name}.")


def test_what_is_read_is_what_is_documented() -> None:
    seen: set[str] = set()
    parse(Watched(FULL, "", seen), EVERYTHING)
    shown = set(documented(serializers.TaskSubmissionSerializer()))
    # env is one object or a list of them: documented as a whole; role is accepted and has no effect.
    assert seen - shown == {"env.name", "env.value"}
    assert shown - seen == {"resources.role"}


def test_a_task_is_written_as_it_is_documented() -> None:
    everything = ended(State.SUCCEEDED, exit_code=0, callback_url="http://a/", host="h")
    written = set(wire.render_task(everything, "t", {}, 30.0))
    written |= set(wire.render_task(everything._replace(image="busybox"), "t", {}, 30.0))
    fields = serializers.TaskSerializer().get_fields()
    assert set(fields) - written == {"callbackAt"}
    assert written <= set(fields)
    always = set(wire.render_task(facts(), "t", {}, 30.0)) - {"commands"}
    assert {name for name, field in fields.items() if field.required} == always


def test_the_other_answers_are_written_as_they_are_documented() -> None:
    assert set(wire.render_kill(facts(), True, 30.0)) == set(serializers.TaskKillSerializer().get_fields())
    told = json.loads(json.dumps(wire.render_reconcile([1], {})))
    assert set(told) == set(serializers.TaskReconcileSerializer().get_fields())
    assert set(told["reconciles"][0]) == set(serializers.ReconciledTaskSerializer().get_fields())
    assert set(wire.render_ok(1)) == set(serializers.TASK_ANSWER.get_fields())
    assert set(wire.render_error(400, "missing", "x", None)) == set(
        serializers.TaskErrorSerializer().get_fields()
    )


def test_the_documents_examples_are_the_seeds_word_for_word() -> None:
    assert json.loads(RUN_CONTAINER) == schema.CONTAINER_EXAMPLE
    assert json.loads(RUN_COMMANDS) == schema.COMMANDS_EXAMPLE
    for example in (schema.TASK_EXAMPLE, schema.COMMANDS_TASK_EXAMPLE):
        assert set(example) <= set(serializers.TaskSerializer().get_fields())


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    answer = api.get("/api/schema/?family=tasks")
    assert answer.status_code == 200
    found: dict[str, Any] = json.loads(answer.content)
    return found


def test_each_route_is_listed_once_in_the_seeds_spelling(document: dict[str, Any]) -> None:
    assert {path: sorted(methods) for path, methods in document["paths"].items()} == {
        "/v1/tasks": ["get", "post"],
        "/v1/tasks/kill": ["post"],
        "/v1/tasks/reconcile": ["post"],
        "/v1/tasks/{task_id}": ["get"],
        "/v1/tasks/{task_id}/logs": ["get"],
        "/v1/tasks/{task_id}/explain": ["get"],
    }


def test_every_operation_has_an_example_and_the_familys_errors(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["operationId"].startswith("tasks_"), where
            for status in ("401", "403", "405", "429", "500"):
                content = operation["responses"][status]["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/TaskError"}, where
            body = operation["responses"]["200"]["content"]
            if "text/plain" not in body:
                assert body["application/json"]["examples"], where


def test_task_ids_are_64_bit(document: dict[str, Any]) -> None:
    shapes = document["components"]["schemas"]
    for name in ("Task", "TaskId", "ReconciledTask"):
        assert shapes[name]["properties"]["taskId"] == {"type": "integer", "format": "int64"}


def test_the_documented_requests_are_accepted(api: Api, document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/tasks"]["post"]["requestBody"]["content"]
    assert JSONParser.media_type in content
    for example in content["application/json"]["examples"].values():
        assert api.post("/v1/tasks", example["value"]).status_code == 200
