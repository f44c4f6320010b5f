"""The whole OpenAPI document against a real API process: what a property tester makes of every operation.

Two tenants: one calls everything, with values of its own, made-up ones and the other's ids; no answer is a
5xx or breaks the document, none shows anything of the other tenant, whose rows stay as they are.
"""

from __future__ import annotations

import json
import random
import re
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
from tests.acceptance.belongings import Known, Nodes, Row, fitting, operated, things
from tests.support.cluster import Cluster
from tests.support.fixtures import Account, make_account
from tests.support.receivers import OPEN as RECEIVERS
from tests.support.staged import OPEN as SWIFTS
from tests.support.swift import KEY, Swift
from tests.support.waiting import limit
from workers.models import Tenant
from workers.tenants import tenancy

pytestmark = pytest.mark.invariant

CANARY: Final = "canary-51c3"
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
#: An operator's calls that show or change what all tenants share: not for the one that must see nothing.
SHARED: Final = (
    *("/api/v1/tenants", "/api/v1/users", "/api/v1/nodes", "/api/v1/audit", "/metrics"),
    "POST /api/v1/queues/{type}/pools",
    "DELETE /api/v1/queues/{type}/pools",
    "PUT /api/v1/queues/{type}/policy",
)
#: An operator's calls within its own tenant.
OPERATED: Final = (
    *("PUT /api/v1/queues/{type}/quotas", "DELETE /api/v1/queues/{type}/quotas"),
    *("POST /api/v1/callbacks/{callback_id}/replay", "POST /api/v1/callbacks/replay"),
    *(
        f"{method} /workqueue/api/{version}/sites/{{site_id}}/{name}"
        for version in ("v1.0", "v1.1")
        for method, name in (("PUT", "limits"), ("PUT", "ban"), ("DELETE", "ban"))
    ),
)
#: Operations that never succeed here, and why: these and no others.
UNREACHED: Final[dict[str, str]] = {}
_USERS: Final = "user_id IN (SELECT user_id FROM workers_membership WHERE tenant_id = %s)"
_RUNS: Final = "run_id IN (SELECT id FROM workers_run WHERE tenant_id = %s)"
_QUEUES: Final = "queue_id IN (SELECT id FROM queues_queue WHERE tenant_id = %s)"
_ENTRIES: Final = f"entry_id IN (SELECT id FROM queues_entry WHERE {_QUEUES})"
_TENANT: Final = "tenant_id = %s"
_TRANSFERS: Final = "job_id IN (SELECT id FROM workqueue_job WHERE tenant_id = %s)"
_LINKS: Final = "source_id IN (SELECT id FROM workqueue_site WHERE tenant_id = %s)"
#: Parameters of queries that wait for what never comes here.
WAITS: Final = ("follow", "wait")
#: What belongs to a tenant, and how its rows are found.
TABLES: Final = {
    "workers_tenant": "id = %s",
    **dict.fromkeys(("workers_run", "workers_secret", "workers_shape", "workers_membership"), _TENANT),
    **dict.fromkeys(("workers_attempt", "workers_runevent", "workers_logchunk"), _RUNS),
    "workers_token": _USERS,
    **dict.fromkeys(("workers_callback", "workers_callbacksecret", "workers_disabledurl"), _TENANT),
    **dict.fromkeys(("workers_registry", "workers_idempotencykey"), _TENANT),
    **dict.fromkeys(("jobs_job", "jobs_executor", "jobs_runtaskjob", "queues_queue"), _TENANT),
    "jobs_target": _RUNS,
    **dict.fromkeys(("queues_entry", "queues_waitingclass", "queues_ownerholding"), _QUEUES),
    "queues_booking": _ENTRIES,
    **dict.fromkeys(("workqueue_site", "workqueue_job"), _TENANT),
    "workqueue_credential": _USERS,
    **dict.fromkeys(("workqueue_element", "workqueue_elementattempt", "workqueue_listingpart"), _TRANSFERS),
    "workqueue_link": _LINKS,
    "workqueue_linkchange": f"link_id IN (SELECT id FROM workqueue_link WHERE {_LINKS})",
    "queues_aggregate_tenants": _TENANT,
}


def rows_of(tenant_id: int) -> dict[str, Any]:
    found = {}
    with connection.cursor() as cursor:
        for table, where in TABLES.items():
            cursor.execute(f"SELECT to_jsonb(t)::text FROM {table} t WHERE {where} ORDER BY 1", [tenant_id])
            found[table] = [row[0] for row in cursor.fetchall()]
    return found


class Caller:
    """Sends what hypothesis makes of an operation: as it is, and with values that exist and fit together."""

    def __init__(self, url: str, who: Account, own: Known, foreign: Known, documented: Any) -> None:
        self.url, self.documented = url, documented
        self.without: tuple[str, ...] = WAITS
        #: The other's ids that were sent: an error names them, and something of one's own may be called so.
        self.named: set[str] = set()
        self.session = requests.Session()
        self.session.headers.update(who.headers)
        self.own, self.foreign = own, foreign
        self.statuses: Counter[int] = Counter()
        self.reached: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def call(self, case: schemathesis.Case[Any], luck: random.Random, *, blind: bool) -> None:
        """In turns: a call that should succeed, the same with what is the other's, a made-up one."""
        label = case.operation.label
        own, foreign = fitting(self.own, label), fitting(self.foreign, label) if blind else []
        turn, kind = divmod(self.calls[label], 3)
        self.calls[label] += 1
        if kind == 0 or (kind == 1 and foreign):
            rows = (foreign if kind else own) or [{}]
            self._fit(case, rows[turn % len(rows)], turn)
        else:
            self._mix(case, [*own, *foreign], luck)
        for name in self.without:
            case.query.pop(name, None)
        sent = json.dumps([case.path_parameters, case.query, case.body], default=str)
        answer = case.call(base_url=self.url, session=self.session, timeout=limit(60))
        # 502, where it is documented, is what another server said.
        checks = [each for each in CHECKS if each is not not_a_server_error or answer.status_code != 502]
        case.validate_response(answer, checks=checks)
        self.statuses[answer.status_code // 100] += 1
        self.reached[label] += answer.status_code // 100 == 2
        text = answer.text
        self.named |= set(re.findall(rf"{CANARY}[-.\w]+", sent))
        for word in sorted(self.named, key=len, reverse=True):
            text = text.replace(word, "")
        assert not blind or CANARY not in text, f"{case.as_curl_command()} shows too much"

    def _fit(self, case: schemathesis.Case[Any], row: Row, turn: int) -> None:
        """What the row has, the document's example as the body, nothing else that is optional."""
        operation = self.documented[case.operation.path][case.operation.method.lower()]
        for parameter in operation.get("parameters", ()):
            name, where = parameter["name"], parameter["in"]
            place = {"path": case.path_parameters, "query": case.query}.get(where, case.headers)
            if name in row:
                place[name] = row[name]
            elif not parameter.get("required"):
                place.pop(name, None)
        if content := operation.get("requestBody", {}).get("content"):
            examples = [each["value"] for each in content["application/json"]["examples"].values()]
            case.body = row.get("body", examples[turn % len(examples)])
            case.media_type = case.media_type or "application/json"
        case.headers.update(row.get("headers", {}))

    @staticmethod
    def _mix(case: schemathesis.Case[Any], rows: list[Row], luck: random.Random) -> None:
        """Some of what is made up becomes what exists, whether it fits together or not."""
        body = case.body if isinstance(case.body, dict) else {}
        places = [{**row.get("body", {}), **row} for row in rows]
        for given_values in (case.path_parameters, case.query, body):
            for name in given_values:
                known = [row[name] for row in places if name in row]
                if known and luck.random() < 0.8:
                    given_values[name] = luck.choice(known)
        for name in ("X-Tenant-Id", "Idempotency-Key"):
            if luck.random() < 0.7:
                case.headers.pop(name, None)


def _try(caller: Caller, operation: Any, examples: int, *, blind: bool) -> None:
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
        caller.call(case, luck, blind=blind)

    tried()


def run(cluster: Cluster, swift: Swift, examples: int) -> Caller:
    with connection.cursor() as cursor:  # no made-up id is that of a caller's token, which would end it
        cursor.execute("SELECT setval(pg_get_serial_sequence('workers_token', 'id'), 700000000)")
    victim = make_account(f"{CANARY}-tenant")
    Tenant.objects.filter(pk=victim.tenant_id).update(title=f"{CANARY}-title")
    who = make_account("caller", scopes=("read", "submit", "worker"))
    operator = make_account("caller", scopes=("read", "submit", "operate", "worker"))
    tenancy.update_tenant("caller", opened={"runtask_cm": True})
    nodes = Nodes()
    foreign, own = things(nodes, victim, CANARY), things(nodes, who, "mine")
    # Whoever has an element's token may report it: the other's are not known.
    foreign = {
        key: [{name: value for name, value in row.items() if name != "headers"} for row in rows]
        for key, rows in foreign.items()
    }
    command = {
        "user": "tester",
        "key": KEY,
        "tenant": "test",
        "authurl": f"{swift.url}/auth/v1.0",
        "cm": "true",
    }
    own["POST /runtask/"] = [{"body": command}]
    shared_things = operated()
    nodes.leave()
    before = rows_of(victim.tenant_id)
    empty = {table for table, rows in before.items() if not rows}
    assert not empty, f"nothing of the other tenant to compare: {empty}"
    # Limits far away, and failed credentials of made-up X-Tenant-Ids are no failures: nothing is throttled.
    cluster.env |= {**SWIFTS, **RECEIVERS, "GANTRY_TENANT_REQUESTS_PER_S": "0"}
    api = cluster.api(threads=4)
    document = json.loads(openapi.document(""))
    caller = Caller(api.url, who, own, foreign, document["paths"])
    operating = Caller(api.url, operator, {**own, **shared_things}, foreign, document["paths"])
    operating.named = caller.named
    operating.without = (*WAITS, "all_tenants")  # it may, and changes then what is compared
    count = 0
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        shared = operation.path.startswith(SHARED) or operation.label.startswith(SHARED)
        operates = shared or operation.label.startswith(OPERATED)
        count += 1
        # The family's second mount has the same views: a third of the examples is enough for its shapes.
        share = examples // 3 if "/workqueue/api/v1.1/" in operation.path else examples
        _try(operating if operates else caller, operation, share, blind=not shared)
    assert count > 30
    caller.statuses += operating.statuses
    caller.reached.update(operating.reached)  # += drops what was never reached
    assert rows_of(victim.tenant_id) == before
    assert "Traceback" not in api.text()
    return caller


@pytest.mark.timeout(600)
def test_no_operation_breaks_the_document_or_shows_another_tenant(cluster: Cluster, swift: Swift) -> None:
    caller = run(cluster, swift, 12)
    assert caller.statuses[2] > 50, caller.statuses
    assert caller.statuses[4] > 50, caller.statuses
    unreached = {label for label, number in caller.reached.items() if not number}
    missed, succeeds = sorted(unreached - UNREACHED.keys()), sorted(UNREACHED.keys() - unreached)
    assert not missed, f"nothing but errors from these, the test looks at nothing: {missed}"
    assert not succeeds, f"these succeed: take them off the list: {succeeds}"


@pytest.mark.long
def test_the_same_with_many_examples(cluster: Cluster, swift: Swift) -> None:
    run(cluster, swift, 500)
