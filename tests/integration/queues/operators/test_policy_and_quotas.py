"""/api/v1/queues/{type}/policy and .../quotas: defaults, changes, refusals, whose they are, what they do."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from queues.admission.look import look
from queues.models import Entry, OwnerHolding, Queue, TypePolicy, WaitingClass
from queues.operators import serializers, services
from tests.integration.conftest import Api, keys
from tests.integration.queues.operators.conftest import BASE, Declared, enqueue, vm
from tests.support.cluster import Cluster
from tests.support.fixtures import Account, make_account
from workers import secrets
from workers.messages import doorbell
from workers.models import AuditEntry, Membership, Secret
from workers.tenants import audit

POLICY = f"{BASE}/vm/policy"
QUOTAS = f"{BASE}/vm/quotas"


def test_a_policy_is_strict_with_declared_pools_until_somebody_says_otherwise(
    api: Api, operator: Account, reader: Account
) -> None:
    assert api(reader, "GET", POLICY)[:2] == (200, {"type": "vm", "mode": "strict", "provider": "pools"})
    assert not TypePolicy.objects.exists()
    wanted = {"type": "vm", "mode": "best_effort", "provider": "pools"}
    assert api(operator, "PUT", POLICY, {"mode": "best_effort"})[:2] == (200, wanted)
    assert set(wanted) == keys(serializers.PolicySerializer)
    assert api(operator, "PUT", f"{POLICY}/", {"provider": "pools", "mode": None})[:2] == (200, wanted)
    assert api(reader, "GET", POLICY)[1] == wanted
    assert api(reader, "GET", f"{BASE}/kube/policy")[1]["mode"] == "strict"
    assert api(operator, "PUT", POLICY, {"mode": "strict"})[1]["mode"] == "strict"
    assert TypePolicy.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"mode": "lax"}, "mode", "strict or best_effort"),
        ({"mode": ["strict"]}, "mode", "strict or best_effort"),
        ({"provider": "placement"}, "auth_url", "must be a URL"),
        ({"provider": "kubernetes", "mode": "strict"}, "secret", "token"),
        ({"provider": "slurm"}, "provider", "available: pools, placement, kubernetes"),
        ({"provider": 7}, "provider", "available: pools"),
        ({"modus": "strict"}, "modus", "no such option"),
        ({"url": "http://keystone.example", "provider": "pools"}, "url", "no such option"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(
    api: Api, operator: Account, body: object, field: str, says: str
) -> None:
    status, answer, _ = api(operator, "PUT", POLICY, body)
    assert (status, answer["error"]["code"], answer["error"]["field"]) == (400, "invalid", field), answer
    assert says in answer["error"]["message"]
    assert not TypePolicy.objects.exists()


def test_a_policy_is_what_admission_does(
    api: Api, operator: Account, declared: Declared, django_capture_on_commit_callbacks: Any
) -> None:
    declared("vm", "a", h=4)
    enqueue(operator.tenant_id, "vm", vm(3))
    assert look("vm") == 1
    enqueue(operator.tenant_id, "vm", vm(4))
    enqueue(operator.tenant_id, "vm", vm(1, host_aggregate="b"))
    assert look("vm") == 0
    assert WaitingClass.objects.filter(aside=True).count() == 1
    with django_capture_on_commit_callbacks() as rung:
        assert api(operator, "PUT", POLICY, {"mode": "best_effort"})[0] == 200
    assert rung.count(doorbell.ring_duties) == 1
    assert not WaitingClass.objects.filter(aside=True).exists()


def test_quotas_are_given_shown_replaced_and_taken_away(
    api: Api, operator: Account, reader: Account, django_capture_on_commit_callbacks: Any
) -> None:
    path = f"{QUOTAS}/team-1"
    body = {"VCPU": "2500m", "Memory": 1024.0, "Disk": None}
    shown = {
        "type": "vm",
        "owner_id": "team-1",
        "quota": {"Memory": 1024, "VCPU": 2.5},
        "held": {},
    }
    with django_capture_on_commit_callbacks() as rung:
        assert api(operator, "PUT", path, body)[:2] == (200, shown)
    assert rung.count(doorbell.ring_duties) == 1
    assert set(shown) == keys(serializers.QuotaSerializer)
    assert api(reader, "GET", path)[:2] == (200, shown)
    assert api(reader, "GET", QUOTAS)[:2] == (200, [shown])
    assert api(operator, "PUT", path, {"Disk": 0})[1]["quota"] == {"Disk": 0}, "0 is a quota, too"
    assert OwnerHolding.objects.filter(quota=None).count() == 2
    assert api(operator, "PUT", path, {"Disk": None})[1]["quota"] == {}
    assert api(operator, "DELETE", path)[0] == 404, "there was none any more"
    api(operator, "PUT", path, {"VCPU": 1})
    status, answer, _ = api(operator, "DELETE", f"{path}/")
    assert (status, answer["quota"]) == (200, {})
    for method, where in (("GET", path), ("DELETE", path), ("GET", f"{QUOTAS}/nobody")):
        assert api(operator, method, where)[0] == 404
    assert api(reader, "GET", QUOTAS)[1] == []
    assert Queue.objects.count() == 1


def test_what_is_held_is_shown_and_never_touched(api: Api, operator: Account, declared: Declared) -> None:
    declared("vm", "a", h=8)
    enqueue(operator.tenant_id, "vm", vm(2), owner="team")
    assert look("vm") == 1
    since = OwnerHolding.objects.get().changed_at
    answer = api(operator, "GET", f"{QUOTAS}/team")[1]
    assert (answer["quota"], answer["held"]) == ({}, {"VCPU": 2})
    assert api(operator, "GET", QUOTAS)[1] == [], "the list is of quotas"
    answer = api(operator, "PUT", f"{QUOTAS}/team", {"VCPU": 3, "Disk": 10})[1]
    assert (answer["quota"], answer["held"]) == ({"Disk": 10, "VCPU": 3}, {"VCPU": 2})
    enqueue(operator.tenant_id, "vm", vm(2), owner="team")
    assert look("vm") == 0, "it would hold 4 of 3"
    assert api(operator, "DELETE", f"{QUOTAS}/team")[1]["held"] == {"VCPU": 2}
    assert OwnerHolding.objects.get(resource="VCPU").changed_at == since
    assert look("vm") == 1
    assert Entry.objects.filter(status="running").count() == 2


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"VCPU": -1}, "VCPU", "between"),
        ({"VCPU": "lots"}, "VCPU", "500m"),
        ({"VCPU": {"max": 1}}, "VCPU", "number"),
        ({"vcpus": 1}, "vcpus", "VCPU, Memory (MB)"),
    ],
)
def test_quotas_that_cannot_be_are_refused(
    api: Api, operator: Account, body: object, field: str, says: str
) -> None:
    api(operator, "PUT", f"{QUOTAS}/o", {"VCPU": 7})
    status, answer, _ = api(operator, "PUT", f"{QUOTAS}/o", body)
    assert (status, answer["error"]["field"]) == (400, field)
    assert says in answer["error"]["message"]
    assert OwnerHolding.objects.get().quota == 7000


def test_other_refusals_of_quotas(api: Api, operator: Account) -> None:
    many = {f"r{number}": 1 for number in range(33)}
    status, answer, _ = api(operator, "PUT", f"{BASE}/any/quotas/o", many)
    assert (status, "33 are more than 32" in answer["error"]["message"]) == (400, True)
    status, answer, _ = api(operator, "PUT", f"{BASE}/any/quotas/o", {"r" * 65: 1})
    assert (status, "1 to 64" in answer["error"]["message"]) == (400, True)
    for owner in ("o" * 256, "%20"):
        status, answer, _ = api(operator, "PUT", f"{QUOTAS}/{owner}", {"VCPU": 1})
        assert (status, answer["error"]["field"]) == (400, "owner_id")
    assert not Queue.objects.exists()


def test_quotas_are_of_the_request_s_tenant(api: Api, operator: Account, stranger: Account) -> None:
    Membership.objects.create(user_id=_user(operator), tenant_id=stranger.tenant_id)
    api(operator, "PUT", f"{QUOTAS}/o", {"VCPU": 1})
    assert api(operator, "PUT", f"{QUOTAS}/o", {"VCPU": 2}, X_Tenant_Id="stranger")[0] == 200
    assert api(operator, "GET", f"{QUOTAS}/o")[1]["quota"] == {"VCPU": 1}
    assert api(stranger, "GET", f"{QUOTAS}/o")[1]["quota"] == {"VCPU": 2}
    api(operator, "DELETE", f"{QUOTAS}/o", X_Tenant_Id="stranger")
    assert [api(stranger, "GET", f"{QUOTAS}/{owner}")[0] for owner in ("o", "x")] == [404, 404]
    assert api(stranger, "GET", QUOTAS)[1] == []
    elsewhere = make_account("elsewhere", scopes=("operate",))
    assert api(elsewhere, "PUT", f"{QUOTAS}/o", {"VCPU": 9}, X_Tenant_Id="default")[0] == 403
    assert OwnerHolding.objects.get(quota__isnull=False).quota == 1000


def _user(account: Account) -> int:
    return Membership.objects.get(user__username=account.user).user_id


def test_owners_are_paged_in_one_query(api: Api, operator: Account, remembered: None) -> None:
    for owner in ("c", "a", "b/1", "d"):
        services.set_quotas(operator.tenant_id, "vm", owner, {"VCPU": 1000, "Disk": 5})
    api(operator, "GET", QUOTAS)
    with CaptureQueriesContext(connection) as queries:
        _, first, response = api(operator, "GET", f"{QUOTAS}?limit=3")
    assert len(queries) == 1
    assert [row["owner_id"] for row in first] == ["a", "b/1", "c"]
    rest = api(operator, "GET", response["Link"].partition(">")[0].removeprefix("<http://testserver"))
    assert (rest[0], [row["owner_id"] for row in rest[1]]) == (200, ["d"])
    assert api(operator, "GET", f"{QUOTAS}?owner=a")[0] == 400


def test_changes_are_in_the_audit_log(api: Api, operator: Account, account: Account) -> None:
    api(operator, "PUT", POLICY, {"mode": "strict"})
    api(operator, "PUT", f"{QUOTAS}/a%2Fb", {"VCPU": 1})
    api(account, "DELETE", f"{QUOTAS}/a%2Fb")
    api(operator, "POST", f"{BASE}/vm/pools", {"aggregate": "a", "hosts": []})
    api(operator, "DELETE", f"{BASE}/vm/pools/a")
    api(operator, "GET", POLICY)
    assert audit.flush()
    found = AuditEntry.objects.order_by("id")
    assert [(row.method, row.route, row.status, row.user_name) for row in found] == [
        ("PUT", "api/v1/queues/<str:type>/policy", 200, operator.user),
        ("PUT", "api/v1/queues/<str:type>/quotas/<anything:owner_id>", 200, operator.user),
        ("DELETE", "api/v1/queues/<str:type>/quotas/<anything:owner_id>", 403, account.user),
        ("POST", "api/v1/queues/<str:type>/pools", 201, operator.user),
        ("DELETE", "api/v1/queues/<str:type>/pools/<anything:aggregate>", 200, operator.user),
    ]
    assert [row.about for row in found] == [
        {"type": "vm"},
        {"type": "vm", "owner_id": "a/b"},
        {"type": "vm", "owner_id": "a/b"},
        {"type": "vm", "aggregate": "a"},
        {"type": "vm", "aggregate": "a"},
    ]


def test_an_owner_may_be_called_anything(cluster: Cluster, operator: Account) -> None:
    """On the real server, which decodes paths by itself."""
    import http.client
    import json

    api = cluster.api()
    host = api.url.removeprefix("http://")
    for owner, path in (
        ("project/7", "project%2F7"),
        ("a b+c%", "a%20b+c%25"),
        ("..", "%2E%2E"),
        ("a/../b", "a%2F..%2Fb"),
        ("/", "%2F/"),
        ("x/", "x%2F/"),
        ("//", "%2F%2F/"),
        ("?#", "%3F%23"),
        ("M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller\n", "M%C3%BCller%0A"),
    ):
        found = []
        for method, body in (("PUT", '{"VCPU": 1}'), ("GET", None), ("DELETE", None)):
            link = http.client.HTTPConnection(host, timeout=30)
            link.request(method, f"{QUOTAS}/{path}", body, {**operator.headers, "Connection": "close"})
            response = link.getresponse()
            found.append((response.status, json.loads(response.read()).get("owner_id")))
            link.close()
        assert found == [(200, owner)] * 3, path


def test_a_provider_with_its_secret(api: Api, operator: Account) -> None:
    """Catches a provider's token in an answer, in the options or left behind by another provider."""
    token = "canary-token-of-a-service-account"
    wanted = {"provider": "kubernetes", "server": "https://kube.example:6443"}
    status, body, _ = api(operator, "PUT", POLICY, wanted)
    assert (status, body["error"]["field"]) == (400, "secret")
    status, body, _ = api(operator, "PUT", POLICY, {**wanted, "secret": token, "region": "x"})
    assert (status, body["error"]["field"]) == (400, "region")
    assert not Secret.objects.exists()
    status, body, _ = api(operator, "PUT", POLICY, {**wanted, "secret": token})
    assert status == 200, body
    assert (body["provider"], body["server"]) == ("kubernetes", "https://kube.example:6443")
    assert "canary" not in str(body)
    assert "canary" not in str(api(operator, "GET", POLICY)[1])
    row = TypePolicy.objects.get()
    assert (row.options, secrets.reveal(row.secret_id or 0)) == ({"server": wanted["server"]}, token)
    # Another address with the same secret, then none of it.
    assert api(operator, "PUT", POLICY, {**wanted, "server": "https://other.example"})[0] == 200
    assert secrets.reveal(TypePolicy.objects.get().secret_id or 0) == token
    assert api(operator, "PUT", POLICY, {"provider": "pools"})[0] == 200
    assert not Secret.objects.exists()
