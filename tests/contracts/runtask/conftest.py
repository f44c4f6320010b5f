"""What the contract tests of runtask share: two tenants, a client, a worker's part played by the test, and a
Swift that says yes unless a test has it say no (the real one: tests/integration/jobs/test_runtask_swift.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography.fernet import Fernet

from jobs.models import RuntaskJob
from jobs.runtask import swift
from tests.contracts.tasks import conftest as tasks
from workers.models import LogChunk, Run
from workers.tenants import identity, tenancy
from workers.vocabulary.errors import EngineError
from workers.vocabulary.leases import ClaimedRun
from workers.vocabulary.states import Reason, State

#: The seed's parameters that are required.
WHO: dict[str, str] = {
    "user": "admin",
    "key": "canary-key",
    "tenant": "admin",
    "authurl": "http://swift.example:5000/v2.0/",
}
BODY: dict[str, str] = {**WHO, "container_name": "genomes", "file_name": "reads.fasta"}
FORM = "application/x-www-form-urlencoded"


class Api(tasks.Api):
    """A client with short forms for runtask."""

    def form(self, path: str, body: dict[str, Any], **headers: str) -> Any:
        return self.send("POST", path, urlencode(body, doseq=True), FORM, **headers)

    def run(self, **fields: Any) -> str:
        """Submit a job, as the original's clients do; returns its id."""
        answer = ok(self.form("/runtask/", {**BODY, **fields}))
        assert answer == {"status": True, "job_id": answer["job_id"]}
        job_id: str = answer["job_id"]
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = ok(self.get(f"/job/?job_id={job_id}"))
        return found


def body(answer: Any) -> Any:
    """The JSON of an answer, streamed or not."""
    return json.loads(answer.getvalue() if answer.streaming else answer.content)


def ok(answer: Any, status: int = 200) -> Any:
    """The JSON of an answer that has to be this one."""
    assert answer.status_code == status, answer.getvalue()
    assert answer.headers["Content-Type"] == "application/json"
    return body(answer)


def error(answer: Any, status: int) -> tuple[str, str]:
    """(kind, what) of an error answer; nothing else may be in it."""
    found = ok(answer, status)
    assert set(found) == {"status", "error_message"}
    assert found["status"] is False
    kind, colon, what = found["error_message"].partition(": ")
    assert colon
    assert what
    assert "canary-key" not in what
    return kind, what


def member(tenant: str, user: str, *scopes: str) -> Api:
    """A client with a new user's token for a tenant, which is made when it is not there."""
    made = tasks.member(tenant, user, *scopes)
    return Api(made.tenant, made.token)


@pytest.fixture(autouse=True)
def _keys(settings: Any, remembered: None) -> None:
    settings.GANTRY_SECRET_KEYS = [Fernet.generate_key().decode()]


@pytest.fixture
def api(db: None) -> Iterator[Api]:
    """A member of the tenant 10002, with the scopes read and submit; cm is open for it."""
    identity.forget()
    made = member("10002", "ann")
    tenancy.update_tenant("10002", opened={"runtask_cm": True})
    yield made
    identity.forget()


@pytest.fixture
def stranger(api: Api) -> Api:
    """A member of another tenant."""
    return member("10003", "bob")


@dataclass
class Asked:
    """What the Swift was asked, and what it answers: nothing wrong, or ``says``."""

    calls: list[tuple[Any, str, list[str]]] = field(default_factory=list)
    says: EngineError | None = None

    def check(self, store: Any, *, container: str = "", inputs: Any = ()) -> None:
        self.calls.append((store, container, [str(place) for place in inputs]))
        if self.says is not None:
            raise self.says


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()
    monkeypatch.setattr(swift, "check", found.check)
    return found


class Stage(tasks.Stage):
    """A node whose worker is this test; jobs by their ids."""

    @staticmethod
    def run_of(job_id: str) -> Run:
        run = RuntaskJob.objects.select_related("run").get(pk=job_id).run
        assert run is not None
        return run

    def begin(self, job_id: str, out: bytes = b"", err: bytes = b"") -> ClaimedRun:
        """The job runs, and has written this."""
        run = self.start(self.run_of(job_id).pk)
        for stream, data in ((1, out), (2, err)):
            if data:
                LogChunk.objects.create(
                    run_id=run.lease.run_id, attempt=run.lease.attempt, stream=stream, offset=0, data=data
                )
        return run

    def done(self, job_id: str, out: bytes = b"", err: bytes = b"") -> None:
        self.finish(self.begin(job_id, out, err), State.SUCCEEDED, Reason.NONE, "", 0)

    def failed(
        self,
        job_id: str,
        reason: Reason,
        message: str,
        code: int | None = None,
        out: bytes = b"",
        err: bytes = b"",
    ) -> None:
        self.finish(self.begin(job_id, out, err), State.FAILED, reason, message, code)


@pytest.fixture
def stage(api: Api) -> Stage:
    """A ready node that nothing runs on."""
    return Stage()


def spec_of(job_id: str) -> dict[str, Any]:
    """What the engine stores of a job."""
    spec: dict[str, Any] = Stage.run_of(job_id).spec
    return spec
