"""The OpenAPI document of the family agrees with what is read and written by hand; its clients work."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from jobs.saved import requests, schema, serializers, wire
from tests.contracts.generated import generated_client
from tests.contracts.jobs.conftest import BODY, NOBODY, Api, Stage, member
from tests.unit.jobs.test_wire import EXECUTOR, target
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.states import State


def fields(serializer: Any) -> set[str]:
    return set(serializer().get_fields())


def needed(serializer: Any) -> set[str]:
    return {name for name, field in serializer().get_fields().items() if field.required}


def test_what_is_written_is_what_is_documented() -> None:
    job = wire.JobFacts(1, UUID(NOBODY), "a", "", "n", "true", False, "", [], [], [])
    assert set(wire.render_job(job)) == fields(serializers.JobSerializer) == needed(serializers.JobSerializer)
    done = target(State.SUCCEEDED, exit_code=0, started=1.5, finished=2.0, facts={"exec_id": "e"})
    failed = target(State.FAILED, reason="lost")
    written = [wire.render_result(EXECUTOR, item, b"") for item in (done, failed, target(State.PENDING))]
    assert set().union(*written) == fields(serializers.JobResultSerializer)
    assert set(written[2]) == needed(serializers.JobResultSerializer)
    assert set(written[0]["ProcessConfig"]) == fields(serializers.JobProcessSerializer)
    head = set(wire.render_head(EXECUTOR, [done])) | {"Result"}
    assert head == fields(serializers.JobExecutorSerializer)


def test_what_is_read_is_what_is_documented() -> None:
    class Watched(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            seen.add(key)
            return super().get(key, default)

    seen: set[str] = set()
    requests.parse_job(Watched(BODY))
    assert seen == fields(serializers.JobBodySerializer)
    for name in needed(serializers.JobBodySerializer):
        with pytest.raises(InvalidInput, match=name):
            requests.parse_job({**BODY, name: None})


def test_the_examples_are_what_is_answered() -> None:
    requests.parse_job(schema.BODY_EXAMPLE)
    assert set(schema.JOB_EXAMPLE) == fields(serializers.JobSerializer)
    assert set(schema.FINISHED_EXAMPLE) == fields(serializers.JobResultSerializer) - {"E"}
    assert serializers.JobSerializer(data=schema.JOB_EXAMPLE).is_valid()
    assert set(schema.EXECUTOR_EXAMPLE) == fields(serializers.JobExecutorSerializer)
    assert set(schema.RUNNING_EXAMPLE) == needed(serializers.JobResultSerializer) | {"ID"}


@pytest.fixture
def served(transactional_db: None, live_server: Any) -> Api:
    return member("10002", "ann")


@pytest.fixture
def package(served: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The generated package."""
    document = served.get("/api/schema/?family=jobs").content
    with generated_client(document, "dce_client", tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.django_db(transaction=True)
def test_a_job_by_the_generated_client(served: Api, live_server: Any, package: ModuleType) -> None:
    calls = {
        name: importlib.import_module(f"dce_client.api.jobs.jobs_{name}")
        for name in (
            *("list_", "create", "replace", "delete", "start", "inspect", "log", "history"),
            *("cancel", "retry", "explain"),
        )
        if name != "list_"
    }
    calls["list"] = importlib.import_module("dce_client.api.jobs.jobs_list")
    models = importlib.import_module("dce_client.models")
    stage = Stage()
    with package.AuthenticatedClient(base_url=live_server.url, token=served.token) as client:
        body = models.JobBodyRequest(
            app_name="2048", name="generated", cmd="ps axu", user="0:0", env=["a=b"], secret_args=["x"]
        )
        job = calls["create"].sync(client=client, body=body)
        assert (job.secret_args, job.executors) == (["*"], [])
        taken = calls["create"].sync(client=client, body=body)
        assert (taken.id, taken.message) == ("jobs_name_duplicated_error", "generated")
        body.secret_args = job.secret_args
        body.name = "renamed"
        assert calls["replace"].sync(str(job.job_id), client=client, body=body).name == "renamed"
        assert [item.name for item in calls["list"].sync(client=client)] == ["renamed"]

        goals = [models.JobTargetRequest("web", "n1"), models.JobTargetRequest("db", "nowhere")]
        started = calls["start"].sync(
            str(job.job_id), client=client, body=models.JobStartRequest(target=goals)
        )
        executor = started.executors[-1]
        both = (str(job.job_id), executor)
        assert calls["explain"].sync(*both, client=client).result[0].explanation.reasons
        stage.run({"JobId": str(job.job_id)}, executor, output=b"out")
        found = calls["inspect"].sync(*both, client=client)
        assert [item.status for item in found.result] == ["FINISHED", "CREATE_FAILED"]
        assert (found.result[0].output, found.result[0].process_config.entrypoint) == ("out", "ps")
        assert "nowhere" in found.result[1].e
        log = calls["log"].sync_detailed(*both, client=client, container_id="web")
        assert (log.status_code, log.content) == (200, b"out")
        assert len(calls["history"].sync(client=client)) == 1
        again = calls["retry"].sync(*both, client=client)
        assert again.executors[0] == executor
        assert (
            calls["cancel"].sync(str(job.job_id), again.executors[1], client=client).executors
            == again.executors
        )
        assert calls["delete"].sync_detailed(str(job.job_id), client=client).status_code == 202
        unknown = calls["inspect"].sync(NOBODY, "1", client=client)
        assert (unknown.id, unknown.message) == ("job_id_not_found", NOBODY)
