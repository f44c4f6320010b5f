"""/api/v1/queues/{type}/capacity: what there is, used, free and over; for whom; at what cost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from queues.admission.look import look
from queues.models import HostResource, TypePolicy
from queues.operators import serializers
from tests.integration.conftest import Api, keys
from tests.integration.queues.operators.conftest import BASE, Declared, enqueue, vm
from tests.support.fixtures import Account, make_account

CAPACITY = f"{BASE}/vm/capacity"


def seen(api: Api, who: Account, path: str = CAPACITY) -> dict[str, Any]:
    status, body, response = api(who, "GET", path)
    assert (status, response["Content-Type"]) == (200, "application/json"), body
    found: dict[str, Any] = json.loads(body)
    return found


def hosts(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {host.pop("name"): host for aggregate in found["aggregates"] for host in aggregate["hosts"]}


def test_an_unused_type_has_nothing(api: Api, reader: Account) -> None:
    found = seen(api, reader)
    as_of = found.pop("as_of")
    assert as_of.endswith("Z")
    assert found == {
        "type": "vm",
        "provider": "pools",
        "mode": "strict",
        "trouble": None,
        "aggregates": [],
        "waiting": 0,
        "running": 0,
        "estimate": {"coverage_p90": None, "median_error": None, "samples": 0, "method": None},
    }
    assert {*found, "as_of"} == keys(serializers.CapacitySerializer)


def test_what_is_used_free_and_over(api: Api, operator: Account, declared: Declared) -> None:
    body = {
        "aggregate": "a",
        "hosts": [{"name": "h1", "VCPU": 8, "Memory": 100.5}, {"name": "h2", "VCPU": 8}, {"name": "h3"}],
    }
    assert api(operator, "POST", f"{BASE}/vm/pools", body)[0] == 201
    enqueue(operator.tenant_id, "vm", {"instances": [{"VCPU": 6, "Memory": 0.25}]})
    enqueue(operator.tenant_id, "vm", vm(8))
    enqueue(operator.tenant_id, "vm", vm(8))
    assert look("vm") == 2
    found = seen(api, operator)
    assert (found["running"], found["waiting"]) == (2, 1)
    assert set(found["aggregates"][0]) < keys(serializers.AggregateUseSerializer)
    assert hosts(found) == {
        "h1": {
            "total": {"Memory": 100.5, "VCPU": 8},
            "used": {"Memory": 0.25, "VCPU": 6},
            "free": {"Memory": 100.25, "VCPU": 2},
        },
        "h2": {"total": {"VCPU": 8}, "used": {"VCPU": 8}, "free": {"VCPU": 0}},
        "h3": {"total": {}, "used": {}, "free": {}},
    }
    declared("vm", "a", h1=2)
    assert hosts(seen(api, operator)) == {
        "h1": {
            "total": {"Memory": 0, "VCPU": 2},
            "used": {"Memory": 0.25, "VCPU": 6},
            "free": {"Memory": 0, "VCPU": 0},
            "over": {"Memory": 0.25, "VCPU": 4},
        },
        "h2": {
            "removed": True,
            "total": {"VCPU": 0},
            "used": {"VCPU": 8},
            "free": {"VCPU": 0},
            "over": {"VCPU": 8},
        },
    }
    declared("vm", "unused", h9=1)
    for name in ("a", "unused"):
        assert api(operator, "DELETE", f"{BASE}/vm/pools/{name}")[0] == 200
    found = seen(api, operator)
    assert [(row["name"], row["removed"]) for row in found["aggregates"]] == [("a", True)]
    assert hosts(found)["h1"]["over"] == {"Memory": 0.25, "VCPU": 6}
    HostResource.objects.update(held=0)
    assert seen(api, operator)["aggregates"] == []


def test_what_others_use_counts(api: Api, operator: Account, declared: Declared) -> None:
    declared("vm", "a", h=8)
    HostResource.objects.update(outside=3000, held=1500)
    assert hosts(seen(api, operator))["h"] == {
        "total": {"VCPU": 8},
        "used": {"VCPU": 4.5},
        "free": {"VCPU": 3.5},
    }


def test_counts_are_the_tenant_s_own_and_an_operator_s_everybody_s(
    api: Api, operator: Account, account: Account, stranger: Account, declared: Declared
) -> None:
    declared("vm", "a", h=2)
    for tenant in (account.tenant_id, stranger.tenant_id, stranger.tenant_id, stranger.tenant_id):
        enqueue(tenant, "vm", vm(1))
    enqueue(account.tenant_id, "kube", {"pods": [{"cpu": 1}]})
    assert look("vm") == 2
    counts = [
        (found["waiting"], found["running"]) for found in (seen(api, who) for who in (account, stranger))
    ]
    assert counts == [(0, 1), (2, 1)]
    found = seen(api, operator)
    assert (found["waiting"], found["running"]) == (2, 2)
    # What others use of a shared host is one anonymous sum.
    assert hosts(seen(api, account))["h"]["used"] == {"VCPU": 2}


def test_a_provider_that_is_asked_says_since_when_and_why_not(api: Api, reader: Account) -> None:
    policy = TypePolicy.objects.create(type="vm", provider="placement", mode="best_effort")
    found = seen(api, reader)
    assert (found["provider"], found["mode"], found["as_of"], found["trouble"]) == (
        *("placement", "best_effort"),
        *(None, None),
    )
    policy.heard_at, policy.trouble = timezone.now(), "it does not answer"
    policy.save()
    found = seen(api, reader)
    assert found["trouble"] == "it does not answer"
    assert found["as_of"] == policy.heard_at.isoformat().replace("+00:00", "Z")


def test_it_needs_the_scope_read(api: Api, db: None, client: Client) -> None:
    assert api(make_account("default", scopes=("worker",)), "GET", CAPACITY)[0] == 403
    assert api(make_account("default", scopes=("operate",)), "GET", CAPACITY)[0] == 403
    assert client.get(CAPACITY).status_code == 401
    assert api(make_account("default"), "POST", CAPACITY, {})[0] == 403


def test_head_has_no_body(api: Api, reader: Account) -> None:
    status, body, _ = api(reader, "HEAD", CAPACITY)
    assert (status, body) == (200, b"")


@pytest.mark.parametrize("number", [1, 10_000])
def test_any_number_of_hosts_is_four_queries_and_streamed(
    api: Api, operator: Account, remembered: None, number: int
) -> None:
    body = {
        "aggregate": "a",
        "hosts": [{"name": f"h{index}", "VCPU": 8, "Memory": 9} for index in range(number)],
    }
    assert api(operator, "POST", f"{BASE}/vm/pools", body)[0] == 201
    with CaptureQueriesContext(connection) as queries:
        status, text, response = api(operator, "GET", CAPACITY)
    assert len(queries) == 4
    assert response.streaming
    assert (status, len(json.loads(text)["aggregates"][0]["hosts"])) == (200, number)
