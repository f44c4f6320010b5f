"""The OpenAPI document of the family agrees with what is read and written by hand; its clients work."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from queues.entries import schema, serializers, wire
from queues.entries.errors import render_error
from queues.models import Entry
from tests.contracts.generated import generated_client
from tests.contracts.queues.conftest import BODY, Api, admit, data, member
from workers.vocabulary.errors import InvalidInput

FACTS = wire.EntryFacts(
    1,
    "vm",
    datetime.now(UTC),
    datetime.now(UTC),
    None,
    "d",
    "y",
    "{}",
    "abc",
    5,
    "queued",
    False,
    None,
    None,
    "V",
)


def fields(serializer: Any) -> set[str]:
    return set(serializer().get_fields())


def test_what_is_written_is_what_is_documented(api: Api) -> None:
    assert list(wire.render_entry(FACTS)) == list(serializers.QueueEntrySerializer().get_fields())
    assert set(wire.render_ok({})) == {"data", "ok"}
    told = render_error(400, "invalid", "x", "field")
    assert set(told) == fields(serializers.QueueErrorSerializer)
    assert set(told["error"]) == fields(serializers.QueueErrorBodySerializer)
    api.create("d")
    why = data(api.get("/v1/vm/d/explain"))
    assert set(why) == fields(serializers.QueueExplanationSerializer)
    assert set(why["reasons"][0]) == fields(serializers.QueueReasonSerializer)
    assert Entry.Status.values == serializers.STATUSES


def test_what_is_read_is_what_is_documented() -> None:
    class Watched(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            seen.add(key)
            return super().get(key, default)

    seen: set[str] = set()
    wire.parse_entry("vm", Watched(BODY))
    documented = serializers.QueueSubmissionSerializer().get_fields()
    assert seen == set(documented)
    assert all(field.required for field in documented.values())
    seen.clear()
    with pytest.raises(InvalidInput):
        wire.parse_move(Watched())
    assert seen == fields(serializers.QueueMoveSerializer)


def test_the_examples_are_the_seeds(api: Api) -> None:
    assert schema.BODY_EXAMPLE == BODY
    made = data(api.post("/v1/vm/", schema.BODY_EXAMPLE))
    varies = ("ID", "CreatedAt", "UpdatedAt", "Priority")
    assert {k: v for k, v in made.items() if k not in varies} == {
        k: v for k, v in schema.QUEUED_EXAMPLE.items() if k not in varies
    }
    why = data(api.get("/v1/vm/d/explain"))
    assert why["since"] == made["CreatedAt"]
    assert {**why, "since": "", "estimate": ""} == {**schema.EXPLANATION_EXAMPLE, "since": "", "estimate": ""}
    admit("d")
    running = api.entry("d")
    assert {k: v for k, v in running.items() if k not in varies} == {
        k: v for k, v in schema.RUNNING_EXAMPLE.items() if k not in varies
    }


def test_each_route_is_listed_once_in_the_seeds_spelling(api: Api) -> None:
    document = json.loads(api.get("/api/schema/?family=queues").content)
    found = {path: sorted(methods) for path, methods in document["paths"].items() if path.startswith("/v1")}
    assert found == {
        "/v1/{type}/": ["get", "post"],
        "/v1/{type}/{request_id}/": ["delete", "get", "post"],
        "/v1/{type}/{request_id}/confirm": ["post"],
        "/v1/{type}/{request_id}/explain": ["get"],
    }
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation["responses"]["409" if method == "delete" else "401"]["content"]
            assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/QueueError"}, path


@pytest.fixture
def served(transactional_db: None, live_server: Any) -> Api:
    return member("10002", "ann")


@pytest.fixture
def package(served: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The generated package."""
    document = served.get("/api/schema/?family=queues").content
    with generated_client(document, "queue_client", tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.django_db(transaction=True)
def test_a_queue_by_the_generated_client(served: Api, live_server: Any, package: ModuleType) -> None:
    calls = {
        name: importlib.import_module(f"queue_client.api.queues.queues_{name}")
        for name in ("list", "create", "retrieve", "move", "end", "confirm", "explain")
    }
    models = importlib.import_module("queue_client.models")
    with package.AuthenticatedClient(base_url=live_server.url, token=served.token) as client:
        bodies = [
            models.QueueSubmissionRequest.from_dict({**BODY, "request_id": name, "callback": name})
            for name in ("a", "b")
        ]
        for name, body in zip(("a", "b"), bodies, strict=True):
            made = calls["create"].sync("vm", client=client, body=body)
            assert (made.ok, made.data.request_id) == (True, name)
        taken = calls["create"].sync("vm", client=client, body=bodies[0])
        assert (taken.ok, taken.error.id) == (False, "request_id_duplicated")
        move = models.QueueMoveRequest(before="a")
        assert calls["move"].sync("vm", "b", client=client, body=move).ok
        listed = calls["list"].sync("vm", client=client).data
        assert [entry.request_id for entry in listed] == ["b", "a"]
        assert calls["retrieve"].sync("vm", "b", client=client).data.status == "queued"
        assert calls["explain"].sync("vm", "b", client=client).data.state == "queued"
        assert calls["confirm"].sync("vm", "b", client=client).error.id == "conflict"
        assert calls["end"].sync("vm", "b", client=client).ok
        assert calls["end"].sync("vm", "c", client=client).error.id == "request_id_not_found"
