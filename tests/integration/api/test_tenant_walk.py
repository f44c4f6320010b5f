"""Every route and verb, called with another tenant's ids: nothing shown, nothing changed, no difference from
ids that do not exist. The owner's requests, and holes made on purpose, prove that the walk sees something.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from django.db import connection, transaction

from config.http import openapi
from jobs.models import Executor, Job, RuntaskJob, Target
from queues.entries import services as queues
from queues.entries import wire
from queues.operators import services as operators
from queues.operators.parsing import PoolRequest
from queues.pools import HostAmounts
from tests.contracts.tasks.conftest import Stage
from tests.integration.api.walk import (
    CANARY,
    FIRST_ID,
    NOBODY,
    OPERATORS,
    QUIET,
    Question,
    Victim,
    ask,
    assert_blind,
    assert_untouched,
    questions,
    rows,
    without_ids,
)
from tests.support.engine import submit
from tests.support.fixtures import make_account
from workers import services
from workers.callbacks import signing
from workers.callbacks.rows import digest
from workers.models import Callback, DisabledUrl, IdempotencyKey, LogChunk, Node, Secret, Tenant, Token
from workers.tenants import registries
from workers.vocabulary.states import Reason, State

pytestmark = pytest.mark.invariant


@pytest.fixture
def victim(db: None, settings: Any) -> Victim:
    settings.TOKEN_CACHE_S = 60
    with connection.cursor() as cursor:
        for table in (
            "workers_run",
            "workers_token",
            "workers_callback",
            "workers_callbacksecret",
            "workers_disabledurl",
            "jobs_runtaskjob",
        ):
            cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [table, FIRST_ID])
    account = make_account(f"{CANARY}-tenant")
    Tenant.objects.filter(pk=account.tenant_id).update(title=f"{CANARY}-title")
    Token.objects.filter(user__username=account.user).update(name=f"{CANARY}-token")
    stage = Stage()
    ids = [
        submit(
            account.tenant_id,
            f"echo {CANARY}-command",
            name=f"{CANARY}-name",
            env={"A": f"{CANARY}-env"},
            callback_url=f"http://{CANARY}.example/",
        )
        for _ in range(3)
    ]
    stage.start(ids[1])
    stage.end(ids[2], State.FAILED, Reason.EXIT_CODE, f"{CANARY}-message", 3)
    for run_id in ids[1:]:
        LogChunk.objects.create(
            run_id=run_id, attempt=1, stream=1, offset=0, data=f"{CANARY}-output\n".encode()
        )
    Secret.objects.create(tenant_id=account.tenant_id, purpose=f"{CANARY}-purpose", ciphertext=b"x")
    IdempotencyKey.objects.create(
        tenant_id=account.tenant_id, method="POST", path="/v1/tasks", key="k", body_digest="0" * 64
    )
    registries.put(account.tenant_id, f"{CANARY}.example", f"{CANARY}-username", f"{CANARY}-password")
    token_id = Token.objects.get(user__username=account.user).pk
    Callback.objects.filter(run_id=ids[2], event="ended").update(state="dead", next_at=None)
    callbacks = Callback.objects.filter(tenant_id=account.tenant_id).order_by("id")
    assert callbacks.count() == 3, "two attempts that started and one end"
    secret, _ = signing.make(account.tenant_id)
    disabled = DisabledUrl.objects.create(
        tenant_id=account.tenant_id,
        url=f"http://{CANARY}.example/gone",
        digest=digest(f"http://{CANARY}.example/gone"),
    )
    runs = [str(run_id) for run_id in ids]
    job = Job.objects.create(
        tenant_id=account.tenant_id,
        app_name=f"{CANARY}-app",
        service_name=f"{CANARY}-service",
        name=f"{CANARY}-job",
        cmd=f"echo {CANARY}-cmd",
        env=[f"A={CANARY}-job-env"],
    )
    executor = Executor.objects.create(
        job=job,
        tenant_id=account.tenant_id,
        number=FIRST_ID,
        create_time=float(FIRST_ID),
        app_name=job.app_name,
        name=job.name,
        cmd=job.cmd,
        privileged=False,
        secret_ids=[],
        secret_lengths=[],
    )
    for ordinal, run_id in enumerate(ids):
        container = f"{CANARY}-container-{ordinal}"
        Target.objects.create(
            executor=executor, ordinal=ordinal, container=container, node=stage.node.name, run_id=run_id
        )
    runtask = RuntaskJob.objects.create(
        tenant_id=account.tenant_id, run_id=ids[1], definition=f"{CANARY}-definition"
    )
    for number, request_id in enumerate((f"{CANARY}-request", f"{CANARY}-behind")):
        wanted = {
            "request_id": request_id,
            "owner_id": f"{CANARY}-owner",
            "callback": f"http://{CANARY}.example/{number}",
            "data": {"VCPU": 1, "project": f"{CANARY}-project"},
        }
        queues.create(account.tenant_id, "machines", wire.parse_entry("machines", wanted))
    host = HostAmounts(f"{CANARY}-host", {"VCPU": 4000}, {})
    operators.declare_pool("machines", PoolRequest(f"{CANARY}-aggregate", [host], [account.tenant]))
    operators.set_quotas(account.tenant_id, "machines", f"{CANARY}-owner", {"VCPU": 4000})
    values = {
        "type": ["machines"],
        "aggregate": [f"{CANARY}-aggregate"],
        "request_id": [f"{CANARY}-behind", f"{CANARY}-request"],
        "owner_id": [f"{CANARY}-owner"],
        "run_id": runs,
        "task_id": runs,
        "taskId": runs,
        "taskIds": [*runs, ",".join(runs)],
        "owner": runs,
        "token_id": [str(token_id)],
        "user": [account.user],
        "name": [f"{CANARY}-name", account.tenant],
        "node": [stage.node.name],
        "job_id": [str(job.uuid), str(runtask.pk)],
        "JobId": [str(job.uuid)],
        "executor_id": [str(executor.number)],
        "AppName": [job.app_name],
        "ContainerId": [f"{CANARY}-container-1"],
        "NodeId": [stage.node.name],
        "tenant": [account.tenant],
        "callback_id": [str(row.pk) for row in callbacks],
        "secret_id": [str(secret.pk)],
        "disabled_id": [str(disabled.pk)],
        "url": [f"http://{CANARY}.example/"],
        "receiver": [f"{CANARY}.example", f"http://{CANARY}.example:80"],
        "registry": [f"{CANARY}.example"],
    }
    return Victim(account, ids, token_id, stage.node.name, values)


@pytest.mark.timeout(600)
def test_a_stranger_sees_and_changes_nothing(victim: Victim) -> None:
    stranger = make_account("stranger", scopes=("read", "submit", "worker"))
    operator = make_account("elsewhere", scopes=("read", "submit", "operate", "worker"))
    before = rows()
    asked_for = 0
    for asked, nobody in questions(victim):
        for who in (stranger, operator):
            if who is operator and OPERATORS.search(asked.template):
                continue
            asked_for += 1
            if asked.method in QUIET:
                assert_blind(who, victim, asked, nobody)
                continue
            with transaction.atomic():
                assert_blind(who, victim, asked, nobody)
                assert_untouched(before, who, victim)
                transaction.set_rollback(True)
    assert rows() == before, "a request that only reads changed something"
    assert asked_for > 300, "the walk has lost its way"


def test_the_victims_name_in_the_header_is_refused_everywhere(victim: Victim) -> None:
    stranger = make_account("stranger", scopes=("read", "submit", "operate", "worker"))
    public = {"/healthz", "/readyz"}
    before = rows()
    for asked, _ in questions(victim):
        if asked.template in public:
            continue
        status, text = ask(stranger, asked, **{"X-Tenant-Id": victim.account.tenant})
        assert status == 403, (asked, status)
        assert CANARY not in text
    assert rows() == before


@pytest.mark.timeout(600)
def test_the_owner_sees_and_changes_what_the_stranger_could_not(victim: Victim) -> None:
    """The walk must be able to fail: for its owner every route that takes an id answers otherwise."""
    owner = victim.account
    owners = make_account(owner.tenant, scopes=("read", "submit", "operate", "worker"))
    shown: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    before = rows()
    wanted: set[str] = set()
    documented = json.loads(openapi.document(""))["paths"]
    for asked, nobody in questions(victim):
        if (
            asked.method.lower() not in documented.get(asked.template, {})
            or not asked.names_something
            or asked.body
        ):
            continue
        if OPERATORS.search(asked.template) and "tokens" not in asked.template:
            continue
        if asked.template.endswith("/reconcile") and str(victim.run_ids[1]) in asked.query:
            continue  # no worker answers for the running one, which takes 5 s to find out
        key = f"{asked.method} {asked.template}"
        if key in (
            "PUT /api/v1/registries/{registry}",
            "POST /v1/{type}/",
            "PUT /api/v1/queues/{type}/quotas/{owner_id}",
        ):
            continue  # makes what it names: the same for whoever asks, and without a body refused
        wanted.add(key)
        for who in (owner, owners):
            with transaction.atomic():
                answer = ask(who, asked)
                after = before if asked.method in QUIET else rows()
                transaction.set_rollback(True)
            with transaction.atomic():
                nobodys_answer = ask(who, nobody)
                transaction.set_rollback(True)
            if (
                without_ids(answer[1], asked) != without_ids(nobodys_answer[1], nobody)
                or answer[0] != nobodys_answer[0]
            ):
                shown[key] += 1
            if before != after:
                changed[key] += 1
    unseen = {key for key in wanted if not shown[key]}
    assert not unseen, f"the owner's requests look like a stranger's: {unseen}"
    for key in (
        "POST /v1/tasks/kill",
        "POST /api/v1/runs/{run_id}/cancel",
        "POST /api/v1/runs/{run_id}/retry",
        "DELETE /api/v1/tokens/{token_id}",
        "DELETE /api/v1/callbacks/secrets/{secret_id}",
        "POST /api/v1/callbacks/disabled/{disabled_id}/enable",
        "POST /api/v1/callbacks/{callback_id}/replay",
        "DELETE /api/v1/registries/{registry}",
        "DELETE /v1/{type}/{request_id}/",
        "POST /canceljob/",
    ):
        assert changed[key], f"{key} changed nothing for its owner"


def test_explanations_name_no_other_tenant(victim: Victim) -> None:
    stranger = make_account("stranger")
    Node.objects.update(cpu_m_used=Node.objects.get().cpu_m_total)
    run_id = submit(stranger.tenant_id, "true", cpu=2)
    for path in (
        f"/api/v1/runs/{run_id}/explain",
        f"/v1/tasks/{run_id}/explain",
        f"/v1/tasks?taskIds={run_id}",
    ):
        status, text = ask(stranger, Question("GET", path, (), ()))
        assert status == 200, text
        assert CANARY not in text
        assert "CPU" in text, "the reason is there, whose work it is not"


@pytest.mark.parametrize(
    ("method", "path", "notices"),
    [
        ("GET", "/api/v1/runs/{run_id}", "canary"),
        ("GET", "/api/v1/runs/{run_id}/logs", "canary"),
        ("POST", "/api/v1/runs/{run_id}/cancel", "-> 200"),
    ],
)
def test_the_walk_notices_a_hole(
    victim: Victim, monkeypatch: pytest.MonkeyPatch, method: str, path: str, notices: str
) -> None:
    """A look-up that forgets the tenant is found by the same assertions."""
    stranger, before, find = make_account("stranger"), rows(), services.find
    value, none = str(victim.run_ids[-1 if method == "GET" else 0]), str(NOBODY)
    asked, nobody = (Question(method, path, ("run_id",), (item,)) for item in (value, none))
    assert_blind(stranger, victim, asked, nobody)
    monkeypatch.setattr(services, "find", lambda tenant_id, run_id, viewer=None: find(None, run_id))
    with pytest.raises(AssertionError, match=notices):
        assert_blind(stranger, victim, asked, nobody)
    if method == "POST":
        with pytest.raises(AssertionError, match=r"workers_(run|callback)"):
            assert_untouched(before, stranger, victim)
