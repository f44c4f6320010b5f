"""What an account has of every family, and how requests name it: for calls that are to succeed.

Made by the families' own services, moved by the engine's own transitions on nodes whose workers are the test.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from jobs.runtask import reading
from jobs.runtask import services as runtask
from jobs.runtask.asking import plan
from jobs.runtask.asking import requests as runtask_requests
from jobs.saved import requests, services, starting
from jobs.saved.containers import Planned
from queues.admission import settle
from queues.entries import services as entries
from queues.entries import wire
from queues.operators import services as operators
from queues.operators.parsing import PoolRequest
from queues.pools import HostAmounts
from tests.acceptance.transferred import transfers
from tests.contracts.jobs.conftest import Stage as ExecStage
from tests.contracts.queues.conftest import admit
from tests.contracts.tasks.conftest import Stage
from tests.support.cluster import free_port
from tests.support.engine import submit
from tests.support.fixtures import Account
from workers.callbacks import signing
from workers.callbacks.rows import digest
from workers.models import Callback, DisabledUrl, IdempotencyKey, LogChunk, Node, Secret
from workers.tenants import registries, tenancy
from workers.vocabulary.states import Reason, State

#: Values that fit together, by the names of parameters; "body": what is sent with them.
Row = dict[str, Any]
#: Rows by the beginning of the operations that take them: "/path", or "METHOD /path" for those of a method.
#: The longest that fits is taken. What a call uses up has rows of its own.
Known = dict[str, list[Row]]

KIND: Final = "vm"
#: The type whose pools and policy the operator changes: what it shares with others stays.
OPERATED: Final = "machines"


def fitting(known: Known, label: str) -> list[Row]:
    """The rows for an operation ("METHOD /path")."""
    path = label.partition(" ")[2]
    found = [key for key in known if (label if " " in key else path).startswith(key)]
    return known[max(found, key=lambda key: (len(key.rpartition(" ")[2]), " " in key))] if found else []


class Nodes:
    """Nodes for commands and for executions in containers; all but their workers."""

    def __init__(self) -> None:
        self.commands, self.execs = Stage(), ExecStage()

    @staticmethod
    def leave() -> None:
        """Nobody waits for an answer of theirs."""
        Node.objects.update(detached=True)


def things(nodes: Nodes, account: Account, mark: str) -> Known:
    """Something of everything that a tenant has, with ``mark`` in it."""
    return {
        **_runs(nodes.commands, account, mark),
        **_callbacks(nodes.commands, account, mark),
        **_jobs(nodes.execs, account, mark),
        **_runtask(nodes.commands, account, mark),
        **_queues(account, mark),
        **transfers(account, mark),
        **_own(account, mark),
    }


def _runs(stage: Stage, account: Account, mark: str) -> Known:
    """Runs in each state, with output, and a secret."""
    waiting, running, failed = (
        submit(account.tenant_id, f"echo {mark}-command", name=f"{mark}-name", env={"A": f"{mark}-env"})
        for _ in range(3)
    )
    stage.start(running)
    stage.end(failed, State.FAILED, Reason.EXIT_CODE, f"{mark}-message", 3)
    for run_id in (running, failed):
        LogChunk.objects.create(run_id=run_id, attempt=1, stream=1, offset=0, data=f"{mark}-out\n".encode())
    Secret.objects.create(tenant_id=account.tenant_id, purpose=f"{mark}-purpose", ciphertext=b"x")
    rows: list[Row] = [
        {"run_id": run_id, "owner": str(run_id), "task_id": run_id, "taskId": run_id, "taskIds": str(run_id)}
        for run_id in (failed, running, waiting)
    ]
    # Nobody answers for the running one, which takes 5 s to find out.
    settled = [rows[0], rows[2]]
    return {"/api/v1/runs": rows, "/v1/tasks": rows, "POST /v1/tasks/reconcile": settled}


def _callbacks(stage: Stage, account: Account, mark: str) -> Known:
    """Callbacks in each state, a URL that is disabled, secrets."""
    url = f"http://{mark}-hook.example/"
    for state in ("delivered", "dead"):
        run_id = submit(account.tenant_id, "true", name=f"{mark}-told", callback_url=url)
        stage.end(run_id, State.SUCCEEDED, exit_code=0)
        Callback.objects.filter(run_id=run_id, event="running").update(state=state, next_at=None)
    found = Callback.objects.filter(tenant_id=account.tenant_id).order_by("state", "id")
    rows: list[Row] = [{"callback_id": row.pk, "url": url} for row in found]
    gone = f"http://{mark}-gone.example/"
    disabled = DisabledUrl.objects.create(tenant_id=account.tenant_id, url=gone, digest=digest(gone))
    secret, _ = signing.make(account.tenant_id)
    outage = {"from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z", "state": "dead"}
    return {
        "/api/v1/callbacks": rows,
        "POST /api/v1/callbacks/replay": [{"body": outage}],
        "POST /api/v1/callbacks/test": [{"body": {"url": f"http://127.0.0.1:{free_port()}/"}}],
        "POST /api/v1/callbacks/disabled/{disabled_id}": [{"disabled_id": disabled.pk}],
        "DELETE /api/v1/callbacks/secrets/{secret_id}": [{"secret_id": secret.pk}],
    }


def _jobs(stage: ExecStage, account: Account, mark: str) -> Known:
    """A job with an executor of each state, one to be replaced and one to be deleted."""

    def save(name: str) -> str:
        names = {"AppName": f"{mark}-app", "ServiceName": f"{mark}-service", "Name": f"{mark}-{name}"}
        more = {"Cmd": f"echo {mark}-cmd", "Env": [f"A={mark}-env"], "SecretArgs": [f"{mark}-secret"]}
        return str(services.create(account.tenant_id, requests.parse_job({**names, **more})).uuid)

    job, edited, deleted = save("job"), save("edited"), save("deleted")
    rows: list[Row] = []
    for state in ("failed", "finished", "running", "waiting", "refused"):
        node = "n9" if state == "refused" else "n1"
        planned = [Planned(f"{mark}-{state}", node)]
        facts = starting.start(account.tenant_id, (), job, partial(list, planned))
        executor = str(facts.executors[-1])
        if state in ("failed", "finished"):
            code = 3 if state == "failed" else 0
            stage.run({"JobId": job}, executor, code=code, output=f"{mark}-output\n".encode())
        if state == "running":
            run = stage.claim({"JobId": job}, executor)
            stage.create(run)
            stage.begin(run)
        place = {"ContainerId": f"{mark}-{state}", "NodeId": node}
        rows.append({"job_id": job, "JobId": job, "AppName": f"{mark}-app", "executor_id": executor, **place})
    edit = {"AppName": "edited", "Name": "edited", "Cmd": "true", "SecretArgs": ["another one"]}
    target = {"Target": [{"ContainerId": f"{mark}-other", "NodeId": "n1"}]}
    return {
        "/api/jobs": rows,
        "PUT /api/jobs/{job_id}": [{"job_id": edited, "body": edit}],
        "DELETE /api/jobs/{job_id}": [{"job_id": deleted}],
        "POST /api/jobs/{job_id}/start": [{"job_id": job, "body": target}],
    }


def _runtask(stage: Stage, account: Account, mark: str) -> Known:
    """Jobs that wait, run and have ended. Their Swift is none that anybody asks."""
    who = {
        "user": f"{mark}-user",
        "key": f"{mark}-key",
        "tenant": "t",
        "authurl": "http://swift.example/v2.0/",
    }
    rows: list[Row] = []
    for state in ("waiting", "running", "ended"):
        asked = runtask_requests.parse({**who, "cm": f"echo {mark}-cm"})
        assert isinstance(asked, runtask_requests.CommandRequest)
        job_id = runtask.submit(account.tenant_id, plan.of_command(asked, ("runtask_cm", "commands")))
        run_id = reading.job(account.tenant_id, job_id).run_id
        if state == "running":
            stage.start(run_id)
        if state == "ended":
            stage.end(run_id, State.SUCCEEDED, exit_code=0)
        rows.append({"job_id": str(job_id), "body": {"job_id": str(job_id)}})
    return {"/job/": rows, "/canceljob/": rows}


def _queues(account: Account, mark: str) -> Known:
    """Entries in each state and some to be ended, a pool of the tenant's alone, quotas."""
    states = ("waiting", "behind", "running", "finished", "cancelled", "failed", "withdrawn", "stopped")
    for state in states:
        wanted = {
            "request_id": f"{mark}-{state}",
            "owner_id": f"{mark}-owner",
            "callback": f"http://{mark}.example/{state}",
            "data": {"instances": [{"VCPU": 1}], "project": f"{mark}-project"},
        }
        entries.create(account.tenant_id, KIND, wire.parse_entry(KIND, wanted))
    for state in ("running", "finished", "stopped", "failed"):
        admit(f"{mark}-{state}", callback="dead" if state == "failed" else "due")
    assert settle.settle()["failed"] == 1
    for state in ("finished", "cancelled"):
        entries.end(account.tenant_id, KIND, f"{mark}-{state}")
    host = HostAmounts(f"{mark}-host", {"VCPU": 4000}, {})
    operators.declare_pool(KIND, PoolRequest(f"{mark}-rack", [host], [account.tenant]))
    for owner in ("owner", "leaver"):
        operators.set_quotas(account.tenant_id, KIND, f"{mark}-{owner}", {"VCPU": 64_000})
    shared = {"type": KIND, "owner_id": f"{mark}-owner", "aggregate": f"{mark}-rack"}
    rows = {state: {**shared, "request_id": f"{mark}-{state}"} for state in states}
    before = {"before": f"{mark}-waiting"}
    wish = {"move": [{"request_id": f"{mark}-behind", **before}], "withdraw": [f"{mark}-withdrawn"]}
    ended = ("withdrawn", "stopped")
    kept = [row for state, row in rows.items() if state not in ended]
    return {
        "/v1/{type}/": kept,
        "POST /v1/{type}/{request_id}/": [{**rows["behind"], "body": before}],
        "DELETE /v1/{type}/{request_id}/": [rows[state] for state in ended],
        "POST /v1/{type}/{request_id}/confirm": [rows["running"], rows["waiting"]],
        "/api/v1/queues/{type}": [shared],
        "DELETE /api/v1/queues/{type}/quotas": [{**shared, "owner_id": f"{mark}-leaver"}],
        "POST /api/v1/queues/{type}/simulate": [{"type": KIND, "body": wish}],
    }


def _own(account: Account, mark: str) -> Known:
    """A token that may be ended, registries, a key of a request that may be repeated."""
    user = tenancy.find_user(account.user)
    spare, _ = tenancy.create_token(user, name=f"{mark}-token", scopes=["read"])
    for host in (f"{mark}.example", f"left.{mark}.example"):
        registries.put(account.tenant_id, host, f"{mark}-username", f"{mark}-password")
    IdempotencyKey.objects.create(
        tenant_id=account.tenant_id, method="POST", path="/v1/tasks", key="k", body_digest="0" * 64
    )
    return {
        "DELETE /api/v1/tokens/{token_id}": [{"token_id": spare.pk}],
        "/api/v1/registries/{registry}": [{"registry": f"{mark}.example"}],
        "DELETE /api/v1/registries/{registry}": [{"registry": f"left.{mark}.example"}],
    }


def operated() -> Known:
    """What operators change: nodes, a tenant with members, a pool, all of them nobody's else."""
    for name in ("drained", "removed"):
        ExecStage.node(name)
    tenancy.create_tenant("operated")
    for name in ("leaver", "joiner", "member"):
        tenancy.create_user(name)
    for name in ("leaver", "member"):
        tenancy.add_member("operated", name)
    pool = PoolRequest("rack", [HostAmounts("h", {"VCPU": 4000}, {})], [])
    operators.declare_pool(OPERATED, pool)
    joiner: Row = {"name": "operated", "user": "joiner"}
    return {
        "/api/v1/nodes/{name}": [{"name": "drained"}],
        "DELETE /api/v1/nodes/{name}": [{"name": "removed"}],
        "/api/v1/tenants/{name}": [{"name": "operated", "user": "member"}],
        "PUT /api/v1/tenants/{name}/members": [{**joiner, "body": {}}],
        "DELETE /api/v1/tenants/{name}/members": [{"name": "operated", "user": "leaver"}],
        "POST /api/v1/users": [{"body": {"name": "ann", "tenants": ["operated"]}}],
        "/api/v1/users/{user}": [{"user": "joiner"}],
        "POST /api/v1/queues/{type}/pools": [{"type": OPERATED}],
        "DELETE /api/v1/queues/{type}/pools": [{"type": OPERATED, "aggregate": "rack"}],
        "PUT /api/v1/queues/{type}/policy": [{"type": OPERATED}],
    }
