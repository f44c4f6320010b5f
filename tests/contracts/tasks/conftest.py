"""What the contract tests of the tasks family share: two tenants, clients, and a way to move tasks along.

Runs are moved by the engine's own transitions on a node row, as a worker would move them; tests that need
commands to really run use the ``node`` fixture of the root conftest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from workers.models import Node, Run, Tenant
from workers.runs import running, transitions
from workers.runs.retries import LOSSES
from workers.tenants import identity, tenancy
from workers.vocabulary.leases import ClaimedRun, Outcome
from workers.vocabulary.states import Reason, State

#: Any 64-bit integer is a valid question; this is the seed's.
UNKNOWN = 806769905152840693


@dataclass
class Api:
    """A client of the HTTP API acting for one tenant. Bodies are sent as they are, bytes or text."""

    tenant: Tenant
    token: str
    headers: dict[str, str] = field(default_factory=dict)
    http: Client = field(default_factory=lambda: Client(raise_request_exception=False))

    def send(
        self, method: str, path: str, body: bytes | str = b"", content_type: str = "", **headers: str
    ) -> Any:
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        sent |= self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.generic(method, path, body, content_type, headers=sent)

    def get(self, path: str, **headers: str) -> Any:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: object = None, **headers: str) -> Any:
        """POST JSON; without a body also without a Content-Type, as old clients do."""
        if body is None:
            return self.send("POST", path, **headers)
        return self.send("POST", path, json.dumps(body), "application/json", **headers)

    def submit(self, **fields: Any) -> int:
        """Submit a command task; returns its taskId."""
        answer = self.post("/v1/tasks", {"taskName": "demo", "commands": "true", **fields})
        assert answer.status_code == 200, answer.content
        task_id: int = answer.json()["data"]["taskId"]
        return task_id

    def tasks(self, *ids: object) -> list[dict[str, Any]]:
        """The task objects of these ids."""
        answer = self.get(f"/v1/tasks?taskIds={','.join(map(str, ids))}")
        assert answer.status_code == 200, answer.content
        data: list[dict[str, Any]] = answer.json()["data"]
        return data

    def task(self, task_id: int) -> dict[str, Any]:
        """One task object, as the batch shows it."""
        (found,) = self.tasks(task_id)
        return found


def error(answer: Any, status: int) -> tuple[int, str]:
    """The number and message of an error answer; nothing else may be in it."""
    assert answer.status_code == status, answer.content
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert set(body) == {"status", "message"}
    assert isinstance(body["message"], str)
    assert body["message"]
    return body["status"], body["message"]


def member(tenant: str, user: str, *scopes: str) -> Api:
    """A client with a new user's token for a tenant, which is made when it is not there."""
    found = Tenant.objects.filter(name=tenant).first() or tenancy.create_tenant(tenant)
    account = tenancy.create_user(user)
    tenancy.add_member(tenant, user)
    _, token = tenancy.create_token(account, name="test", scopes=scopes or ("read", "submit"))
    return Api(found, token)


@pytest.fixture
def api(db: None) -> Iterator[Api]:
    """A member of the tenant 10002, with the scopes read and submit."""
    identity.forget()
    yield member("10002", "ann")
    identity.forget()


@pytest.fixture
def stranger(api: Api) -> Api:
    """A member of another tenant."""
    return member("10003", "bob")


class Stage:
    """A node whose worker is this test: claims, starts and ends tasks through the engine's transitions."""

    def __init__(self) -> None:
        self.node = Node.objects.create(
            name="node-a",
            detached=False,
            attributes={"hostname": "agent-7", "rack_id": "r1"},
            runtimes=["process"],
            isolates_users=True,
            cpu_m_configured=64_000,
            mem_mb_configured=65_536,
            cpu_m_total=64_000,
            mem_mb_total=65_536,
        )

    def claim(self, task_id: int) -> ClaimedRun:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("UPDATE workers_run SET not_before = NULL WHERE id = %s", [task_id])
            (run,) = transitions.claim(cursor, self.node.pk, self.node.name, [task_id])
        return run

    def start(self, task_id: int) -> ClaimedRun:
        run = self.claim(task_id)
        with transaction.atomic(), connection.cursor() as cursor:
            assert running.started(cursor, [(run.lease, 0.0, "Command is running")])
        return run

    def end(
        self,
        task_id: int,
        state: State,
        reason: Reason = Reason.NONE,
        message: str = "",
        exit_code: int | None = None,
    ) -> None:
        """Start the task and end it."""
        self.finish(self.start(task_id), state, reason, message, exit_code)

    @staticmethod
    def finish(
        run: ClaimedRun,
        state: State,
        reason: Reason = Reason.NONE,
        message: str = "",
        exit_code: int | None = None,
    ) -> None:
        """End a claimed task, or send it back to the queue when it has a try left."""
        outcome = Outcome(run.lease, state, reason, message, exit_code, backoff_s=60.0)
        with transaction.atomic(), connection.cursor() as cursor:
            again = run.retries_left and (reason in LOSSES or not run.losses_only)
            if again and state is State.FAILED:
                assert transitions.retry(cursor, [outcome], by="test")
            else:
                assert transitions.finish(cursor, [outcome], by="test")

    def silence(self, seconds: float) -> None:
        """Let the node's last heartbeat be that long ago."""
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE workers_node SET heartbeat_at = now() - %s * interval '1 second' WHERE id = %s",
                [seconds, self.node.pk],
            )


@pytest.fixture
def stage(api: Api) -> Stage:
    """A ready node that nothing runs on."""
    return Stage()


def spec_of(task_id: int) -> dict[str, Any]:
    """What the engine stores of a task."""
    stored: dict[str, Any] = Run.objects.values_list("spec", flat=True).get(pk=task_id)
    return stored


def count() -> int:
    """How many runs there are, of whatever family."""
    return Run.objects.count()
