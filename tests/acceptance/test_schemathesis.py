"""The whole OpenAPI document against a real API process: what a property tester makes of every operation.

Two tenants: one calls everything, with values of its own, made-up ones and the other's ids; no answer is a
5xx or breaks the document, none shows anything of the other tenant, whose rows stay as they are.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any, Final

import pytest
import requests
import schemathesis
from django.db import connection
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from config.http import openapi
from tests.contracts.tasks.conftest import Stage
from tests.support.cluster import Cluster
from tests.support.engine import submit
from tests.support.fixtures import Account, make_account
from tests.support.waiting import limit
from workers.models import LogChunk, Secret, Tenant
from workers.vocabulary.states import Reason, State

pytestmark = pytest.mark.invariant

CANARY: Final = "canary-51c3"
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
#: An operator's calls that show or change what all tenants share: not for the one that must see nothing.
SHARED: Final = ("/api/v1/tenants", "/api/v1/users", "/api/v1/nodes", "/api/v1/audit", "/metrics")
#: Parameters of ids, as paths and queries name them.
IDS: Final = ("run_id", "task_id", "taskId", "taskIds", "owner", "token_id")
TABLES: Final = ("workers_run", "workers_attempt", "workers_runevent", "workers_token", "workers_secret")


def things(stage: Stage, account: Account, mark: str) -> list[int]:
    """Runs in each state, with output, and a secret."""
    ids = [
        submit(account.tenant_id, f"echo {mark}-command", name=f"{mark}-name", env={"A": f"{mark}-env"})
        for _ in range(3)
    ]
    stage.start(ids[1])
    stage.end(ids[2], State.FAILED, Reason.EXIT_CODE, f"{mark}-message", 3)
    for run_id in ids[1:]:
        LogChunk.objects.create(run_id=run_id, attempt=1, stream=1, offset=0, data=f"{mark}-out\n".encode())
    Secret.objects.create(tenant_id=account.tenant_id, purpose=f"{mark}-purpose", ciphertext=b"x")
    return ids


def rows_of(tenant_id: int) -> dict[str, Any]:
    found = {}
    own = {
        "workers_attempt": "run_id IN (SELECT id FROM workers_run WHERE tenant_id = %s)",
        "workers_runevent": "run_id IN (SELECT id FROM workers_run WHERE tenant_id = %s)",
        "workers_token": "user_id IN (SELECT user_id FROM workers_membership WHERE tenant_id = %s)",
    }
    with connection.cursor() as cursor:
        for table in TABLES:
            where = own.get(table, "tenant_id = %s")
            cursor.execute(f"SELECT to_jsonb(t) FROM {table} t WHERE {where} ORDER BY id", [tenant_id])
            found[table] = [row[0] for row in cursor.fetchall()]
    return found


class Caller:
    """Sends what hypothesis makes of an operation, some of it with ids that exist."""

    def __init__(self, url: str, who: Account, ids: list[int], foreign: list[int], *, blind: bool) -> None:
        self.url, self.blind = url, blind
        self.session = requests.Session()
        self.session.headers.update(who.headers)
        self.ids, self.foreign = ids, foreign
        self.statuses: Counter[int] = Counter()
        self.reached: Counter[str] = Counter()

    def call(self, case: schemathesis.Case[Any], luck: random.Random) -> None:
        ids = [*self.ids, *self.foreign]
        if "reconcile" in case.operation.path:
            ids.remove(self.ids[1])  # its node has no worker: finding out would take 5 s each time
        for given_values in (case.path_parameters, case.query):
            for name in given_values or ():
                if name in IDS and luck.random() < 0.8:
                    given_values[name] = luck.choice(ids)
        for name in ("follow", "wait"):  # they wait for what never comes here
            if case.query:
                case.query.pop(name, None)
        for name in ("X-Tenant-Id", "Idempotency-Key"):
            if case.headers and luck.random() < 0.7:
                case.headers.pop(name, None)
        answer = case.call(base_url=self.url, session=self.session, timeout=limit(60))
        case.validate_response(answer, checks=CHECKS)
        self.statuses[answer.status_code // 100] += 1
        self.reached[case.operation.label] += answer.status_code // 100 == 2
        assert not self.blind or CANARY not in answer.text, f"{case.as_curl_command()} shows too much"


def _try(caller: Caller, operation: Any, examples: int) -> None:
    luck = random.Random(operation.label)

    @seed(20)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def tried(case: schemathesis.Case[Any]) -> None:
        caller.call(case, luck)

    tried()


def run(cluster: Cluster, examples: int) -> Caller:
    victim = make_account(f"{CANARY}-tenant")
    Tenant.objects.filter(pk=victim.tenant_id).update(title=f"{CANARY}-title")
    stage = Stage()
    foreign = things(stage, victim, CANARY)
    who = make_account("caller", scopes=("read", "submit", "worker"))
    operator = make_account("caller", scopes=("read", "submit", "operate", "worker"))
    ids = things(stage, who, "mine")
    before = rows_of(victim.tenant_id)
    # Limits far away, and failed credentials of made-up X-Tenant-Ids are no failures: nothing is throttled.
    api = cluster.api(threads=4, GANTRY_TENANT_REQUESTS_PER_S="0")
    caller = Caller(api.url, who, ids, foreign, blind=True)
    operating = Caller(api.url, operator, ids, [], blind=False)
    document = schemathesis.openapi.from_dict(json.loads(openapi.document("")))
    count = 0
    for found in document.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        label = f"{operation.method.upper()} {operation.path}"
        if label == "DELETE /api/v1/tokens/{token_id}":
            continue  # it would end the credentials of the caller: integration tests do it
        count += 1
        _try(operating if operation.path.startswith(SHARED) else caller, operation, examples)
    assert count > 30
    caller.statuses += operating.statuses
    caller.reached.update(operating.reached)  # += drops what was never reached
    assert rows_of(victim.tenant_id) == before
    assert "Traceback" not in api.text()
    return caller


@pytest.mark.timeout(600)
def test_no_operation_breaks_the_document_or_shows_another_tenant(cluster: Cluster) -> None:
    caller = run(cluster, 12)
    assert caller.statuses[2] > 50, caller.statuses
    assert caller.statuses[4] > 50, caller.statuses
    unreached = [label for label, number in caller.reached.items() if not number]
    assert not unreached, "nothing but errors from these: the test looks at nothing"


@pytest.mark.long
def test_the_same_with_many_examples(cluster: Cluster) -> None:
    run(cluster, 500)
