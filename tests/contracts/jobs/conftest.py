"""What the contract tests of saved jobs share: two tenants, a client, and a worker's part played by the test.

Runs are moved by the engine's own transitions on node rows, as a worker would move them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import connection, transaction

from jobs.models import Target
from tests.contracts.tasks import conftest as tasks
from workers.models import LogChunk, Node, Tenant
from workers.runs import running, transitions
from workers.tenants import identity, tenancy
from workers.vocabulary.leases import ClaimedRun, Outcome
from workers.vocabulary.states import Reason, State

#: The seed's own job, without its privilege.
BODY: dict[str, Any] = {
    "AppName": "2048",
    "ServiceName": "2048_2048",
    "Name": "上线",
    "Cmd": "ps axu",
    "Privileged": False,
    "User": "root:root",
    "Env": ["a=b", "c=d"],
    "SecretArgs": ["x", "yy"],
}
NOBODY = "5d1c8f5e-6a0f-4c5f-9c0b-1a2b3c4d5e6f"
EXEC_ID = "af161f8029c9f845531d09b801594363dd09a0865a9f6c30e11119d1a9966457"
CONTAINER = "a6c71c6f032a49487bc49d51d4de6d763a44e59addfc4a1c1b161a0728499f66"


class Api(tasks.Api):
    """A client with short forms for saved jobs."""

    def put(self, path: str, body: object) -> Any:
        return self.send("PUT", path, json.dumps(body), "application/json")

    def job(self, **fields: Any) -> dict[str, Any]:
        """Save a job; returns it."""
        job: dict[str, Any] = ok(self.post("/api/jobs", {**BODY, **fields}))
        return job

    def start(self, job: dict[str, Any], *targets: tuple[str, str], **headers: str) -> str:
        """Start a job in (ContainerId, NodeId); returns the new executor's id."""
        sent = [{"ContainerId": container, "NodeId": node} for container, node in targets]
        started = ok(self.post(f"/api/jobs/{job['JobId']}/start", {"Target": sent}, **headers))
        executor: str = started["Executors"][-1]
        return executor

    def inspect(self, job: dict[str, Any], executor: str) -> dict[str, Any]:
        found: dict[str, Any] = ok(self.get(f"/api/jobs/{job['JobId']}/inspect/{executor}"))
        return found

    def log(self, job: dict[str, Any], executor: str, query: str) -> Any:
        return self.get(f"/api/jobs/{job['JobId']}/log/{executor}?{query}")


def body(answer: Any) -> Any:
    """The JSON of an answer, streamed or not."""
    return json.loads(answer.getvalue() if answer.streaming else answer.content)


def ok(answer: Any, status: int = 200) -> Any:
    """The JSON of an answer that has to be this one."""
    assert answer.status_code == status, answer.getvalue()
    assert answer.headers["Content-Type"] == "application/json"
    return body(answer)


def error(answer: Any, status: int) -> tuple[str, str]:
    """(id, message) of an error answer; nothing else may be in it."""
    found = ok(answer, status)
    assert set(found) == {"id", "message"}
    assert isinstance(found["message"], str)
    assert found["message"]
    return found["id"], found["message"]


def member(tenant: str, user: str, *scopes: str) -> Api:
    """A client with a new user's token for a tenant, which is made when it is not there."""
    made = tasks.member(tenant, user, *scopes)
    return Api(made.tenant, made.token)


@pytest.fixture(autouse=True)
def _keys(settings: Any, remembered: None) -> None:
    settings.GANTRY_SECRET_KEYS = [Fernet.generate_key().decode()]


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


def open_policy(tenant: Tenant, **keys: Any) -> None:
    """What an operator opens for a tenant."""
    tenancy.update_tenant(tenant.name, opened=keys)


class Stage:
    """Nodes whose workers are this test: claims, starts and ends the runs of targets."""

    def __init__(self) -> None:
        self.nodes = {name: self.node(name, swarm) for name, swarm in (("n1", ""), ("n2", "swarm-2"))}

    @staticmethod
    def node(name: str, swarm: str = "", **more: Any) -> Node:
        return Node.objects.create(
            name=name,
            swarm_node_id=swarm,
            attributes={"hostname": name, "node": name},
            isolates_users=True,
            cpu_m_configured=1000,
            mem_mb_configured=1024,
            cpu_m_total=1000,
            mem_mb_total=1024,
            **{"detached": False, "runtimes": ["exec"], **more},
        )

    @staticmethod
    def target(job: dict[str, Any], executor: str, ordinal: int) -> Target:
        return Target.objects.select_related("run").get(
            executor__job__uuid=job["JobId"], executor__number=int(executor), ordinal=ordinal
        )

    def claim(self, job: dict[str, Any], executor: str, ordinal: int = 0) -> ClaimedRun:
        """Claim the run of a target on the node that it is meant for."""
        target = self.target(job, executor, ordinal)
        assert target.run is not None
        (name,) = target.run.shape.constraints["node"]
        node = self.nodes[name]
        with transaction.atomic(), connection.cursor() as cursor:
            (run,) = transitions.claim(cursor, node.pk, node.name, [target.run.pk])
        return run

    @staticmethod
    def create(run: ClaimedRun, container: str = CONTAINER, exec_id: str = EXEC_ID) -> None:
        """The exec has been created."""
        with transaction.atomic(), connection.cursor() as cursor:
            assert running.tell(cursor, [(run.lease, {"exec_id": exec_id, "container_id": container})])

    @staticmethod
    def begin(run: ClaimedRun, pid: int = 27396) -> None:
        """The exec runs."""
        with transaction.atomic(), connection.cursor() as cursor:
            assert running.tell(cursor, [(run.lease, {"pid": pid})])
            assert running.started(cursor, [(run.lease, 0.0, "Command is running")])

    @staticmethod
    def write(run: ClaimedRun, output: bytes, chunk: int = 256 * 1024) -> None:
        """Output as a worker ships it."""
        for offset in range(0, len(output), chunk):
            LogChunk.objects.create(
                run_id=run.lease.run_id,
                attempt=run.lease.attempt,
                stream=1,
                offset=offset,
                data=output[offset : offset + chunk],
            )

    @staticmethod
    def finish(
        run: ClaimedRun,
        state: State = State.SUCCEEDED,
        reason: Reason = Reason.NONE,
        message: str = "",
        code: int | None = None,
    ) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            assert transitions.finish(cursor, [Outcome(run.lease, state, reason, message, code)], by="test")

    def run(
        self, job: dict[str, Any], executor: str, ordinal: int = 0, *, code: int = 0, output: bytes = b""
    ) -> ClaimedRun:
        """Let a target run to its end."""
        run = self.claim(job, executor, ordinal)
        self.create(run)
        self.begin(run)
        self.write(run, output)
        if code:
            self.finish(run, State.FAILED, Reason.EXIT_CODE, f"Command exited with status {code}", code)
        else:
            self.finish(run, code=0)
        return run


@pytest.fixture
def stage(api: Api) -> Stage:
    """Two ready nodes; the second is in a swarm, as swarm-2."""
    return Stage()


def near_now(seconds: float) -> bool:
    return abs(seconds - time.time()) < 300
