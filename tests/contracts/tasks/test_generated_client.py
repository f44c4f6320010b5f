"""A client that we did not write: openapi-python-client makes one from the schema, and it works as it is."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.contracts.generated import generated_client
from tests.contracts.tasks.conftest import Api, Stage, member
from workers.vocabulary.states import State

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def served(live_server: Any) -> Api:
    """A member of the tenant 10002, and the API over real HTTP."""
    return member("10002", "ann")


@pytest.fixture
def package(served: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The generated package."""
    document = served.get("/api/schema/?family=tasks").content
    with generated_client(document, "juice_client", tmp_path, monkeypatch) as made:
        yield made


def test_a_task_by_the_generated_client(served: Api, live_server: Any, package: ModuleType) -> None:
    calls = {
        name: importlib.import_module(f"juice_client.api.tasks.tasks_{name}")
        for name in ("submit", "query", "kill", "reconcile", "retrieve", "explain", "logs")
    }
    models = importlib.import_module("juice_client.models")
    client = package.AuthenticatedClient(base_url=live_server.url, token=served.token)
    with client:
        body = models.TaskSubmissionRequest(
            task_name="generated",
            commands="echo generated",
            env=[models.TaskEnvironmentRequest(name="A", value="b")],
            constraints=models.TaskConstraintsRequest(field="rack_id", values=["r1"]),
            resources=models.TaskResourcesRequest(cpu=0.5, mem=256.0),
            retry=1,
        )
        first = calls["submit"].sync(client=client, body=body)
        second = calls["submit"].sync(client=client, body=body, idempotency_key="k")
        again = calls["submit"].sync(client=client, body=body, idempotency_key="k")
        assert (first.status, first.message) == (0, "OK")
        assert second.data.task_id == again.data.task_id != first.data.task_id

        ids = f"{first.data.task_id},{second.data.task_id}"
        found = calls["query"].sync(client=client, task_ids=ids)
        assert [task.task_id for task in found.data] == [first.data.task_id, second.data.task_id]
        assert (found.data[0].task_status, found.data[0].commands) == (-1, "echo generated")

        told = calls["explain"].sync(client=client, task_id=first.data.task_id)
        assert told.data.reasons[0].message

        stage = Stage()
        stage.end(first.data.task_id, State.SUCCEEDED, message="Command exited with status 0", exit_code=0)
        ended = calls["retrieve"].sync(client=client, task_id=first.data.task_id)
        assert (ended.data.task_status, ended.data.agent_host) == (2, "agent-7")
        assert calls["logs"].sync_detailed(client=client, task_id=first.data.task_id).status_code == 200

        killed = calls["kill"].sync(client=client, task_id=second.data.task_id)
        assert (killed.data.submit_kill, killed.data.current_status) == (True, 6)
        compared = calls["reconcile"].sync(client=client, task_ids=ids)
        assert (compared.data.request, len(compared.data.reconciles)) == (2, 2)

        refused = calls["submit"].sync(client=client, body=models.TaskSubmissionRequest(task_name="empty"))
        assert isinstance(refused, models.TaskError)
        assert refused.status == -2127552257
        unknown = calls["retrieve"].sync(client=client, task_id=2**62)
        assert isinstance(unknown, models.TaskError)
        assert unknown.status == -2127560608


def test_it_is_told_of_bad_credentials(served: Api, live_server: Any, package: ModuleType) -> None:
    query = importlib.import_module("juice_client.api.tasks.tasks_query")
    client = package.AuthenticatedClient(base_url=live_server.url, token="gnt_of_nobody")
    with client:
        answer = query.sync_detailed(client=client, task_ids="1")
    assert answer.status_code == 401
    assert answer.parsed.status == -2127552014
