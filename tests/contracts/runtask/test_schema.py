"""The OpenAPI document of the family agrees with what is read and written by hand; its clients work."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jobs.runtask import errors, schema, serializers, wire
from jobs.runtask.asking import requests
from jobs.runtask.catalogue.parsing import Definition
from tests.contracts.generated import generated_client
from tests.contracts.runtask.conftest import WHO, Api, Stage, member
from tests.unit.jobs.test_runtask_wire import facts
from workers.tenants import tenancy
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.states import Reason, State


def fields(serializer: Any) -> set[str]:
    return set(serializer().get_fields())


def needed(serializer: Any) -> set[str]:
    return {name for name, field in serializer().get_fields().items() if field.required}


def test_what_is_written_is_what_is_documented() -> None:
    jobs = [
        wire.render_job(facts(state, reason), b"", b"")
        for state, reason in ((State.RUNNING, ""), (State.SUCCEEDED, ""), (State.FAILED, Reason.INPUT))
    ]
    assert set().union(*jobs) == fields(serializers.RuntaskJobSerializer)
    assert set(jobs[0]) == needed(serializers.RuntaskJobSerializer)
    boxed = wire.render_definition(Definition("a", "x", image="busybox"))
    assert set(boxed) == fields(serializers.RuntaskDefinitionSerializer)
    assert set(boxed) - {"image"} == needed(serializers.RuntaskDefinitionSerializer)
    for made, shape in (
        (wire.render_submitted(1), serializers.RuntaskSubmittedSerializer),
        (wire.render_cancelled(1, True), serializers.RuntaskCancelledSerializer),
        (errors.render_error(400, "x", "what", None), serializers.RuntaskErrorSerializer),
        (schema.LIST_EXAMPLE, serializers.RuntaskListSerializer),
    ):
        assert set(made) == fields(shape) == needed(shape)


def test_what_is_read_is_what_is_documented() -> None:
    class Watched(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            seen.add(key)
            return super().get(key, default)

    seen: set[str] = set()
    requests.parse(Watched(schema.DEFINITION_EXAMPLE))
    requests.parse(Watched(schema.COMMAND_EXAMPLE))
    assert seen == fields(serializers.RuntaskBodySerializer)
    for name in needed(serializers.RuntaskBodySerializer):
        with pytest.raises(InvalidInput, match=name):
            requests.parse({**WHO, name: None})


@pytest.fixture
def served(transactional_db: None, live_server: Any) -> Api:
    made = member("10002", "ann")
    tenancy.update_tenant("10002", opened={"runtask_cm": True})
    return made


@pytest.fixture
def package(served: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The generated package; of the whole document, since the definitions are listed below /api/v1."""
    document = served.get("/api/schema/").content
    with generated_client(document, "bio_client", tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.django_db(transaction=True)
def test_a_job_by_the_generated_client(served: Api, live_server: Any, package: ModuleType) -> None:
    calls = {
        name: importlib.import_module(f"bio_client.api.runtask.{name}")
        for name in ("runtask_submit", "runtask_job", "runtask_list", "runtask_cancel", "definitions_list")
    }
    models = importlib.import_module("bio_client.models")
    stage = Stage()
    with package.AuthenticatedClient(base_url=live_server.url, token=served.token) as client:
        assert calls["runtask_list"].sync(client=client).empty is True
        body = models.RuntaskBodyRequest(**WHO, cm="cat {input_file[0]}", input_file="c/a")
        first, second = (calls["runtask_submit"].sync(client=client, body=body).job_id for _ in range(2))
        assert calls["runtask_list"].sync(client=client).jobs == [first, second]
        stage.done(first, b"out")
        found = calls["runtask_job"].sync(client=client, job_id=first)
        assert (found.job_done, found.job_error, found.out, found.process_out) == (True, False, "out", "out")
        cancel = models.RuntaskCancelRequest(job_id=second)
        assert calls["runtask_cancel"].sync(client=client, body=cancel).prevstatus is True
        found = calls["runtask_job"].sync(client=client, job_id=second, wait=1.0)
        assert found.error_message == "Cancelled: before it started"
        unknown = calls["runtask_job"].sync(client=client, job_id="999999")
        assert (unknown.status, unknown.error_message) == (False, "NotFound: there is no such job")
        offered = calls["definitions_list"].sync(client=client)
        assert [(item.name, item.parameters) for item in offered] == [("clustalo", 0), ("default", 0)]
