"""/api/v1/queues/{type}/pools: declaring, replacing, removing; what is refused; who sees what."""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from queues import locks
from queues.admission import booking
from queues.admission.look import look
from queues.models import (
    Aggregate,
    Booking,
    Entry,
    Host,
    HostResource,
    OwnerHolding,
    Queue,
    TypePolicy,
    WaitingClass,
)
from queues.operators import serializers, services
from queues.operators.parsing import PoolRequest
from queues.pools import HostAmounts
from tests.integration.conftest import Api, keys
from tests.integration.queues.operators.conftest import BASE, Declared, enqueue, pool, vm
from tests.support.fixtures import Account
from tests.support.waiting import limit, wait_until
from workers.models import IdempotencyKey, Tenant
from workers.vocabulary.errors import NotFound

POOLS = f"{BASE}/vm/pools"


def test_a_pool_is_declared_shown_replaced_and_removed(api: Api, operator: Account, reader: Account) -> None:
    body = {
        "aggregate": "rack-1",
        "hosts": [
            {"name": "h2", "VCPU": 8, "Memory": "64Ki", "Disk": None},
            {"name": "h1", "VCPU": 0.5, "Memory": 1},
        ],
    }
    shown = {
        "type": "vm",
        "aggregate": "rack-1",
        "hosts": [{"name": "h1", "Memory": 1, "VCPU": 0.5}, {"name": "h2", "Memory": 65536, "VCPU": 8}],
    }
    status, answer, _ = api(operator, "POST", POOLS, body)
    assert (status, answer) == (201, shown)
    assert set(answer) <= keys(serializers.PoolSerializer)
    assert api(reader, "GET", f"{POOLS}/rack-1")[:2] == (200, shown)
    assert api(reader, "GET", POOLS)[:2] == (200, [shown])
    assert api(operator, "POST", POOLS, shown)[:2] == (200, shown), "what was shown is taken again"
    changed = {"aggregate": "rack-1", "hosts": [{"name": "h2", "VCPU": 4}, {"name": "h3"}]}
    status, answer, _ = api(operator, "POST", f"{POOLS}/", changed)
    assert (status, answer["hosts"]) == (200, [{"name": "h2", "VCPU": 4}, {"name": "h3"}])
    status, answer, _ = api(operator, "DELETE", f"{POOLS}/rack-1/")
    assert (status, answer["hosts"]) == (200, changed["hosts"]), "as it was"
    assert api(operator, "GET", f"{POOLS}/rack-1")[0] == 404
    assert api(operator, "DELETE", f"{POOLS}/rack-1")[0] == 404
    assert api(operator, "GET", POOLS)[1] == []
    assert api(operator, "POST", POOLS, body)[:2] == (201, shown), "new again, without what h3 and h2 had"


def test_capacity_is_rounded_down(api: Api, operator: Account) -> None:
    body = {"aggregate": "a", "hosts": [{"name": "n", "cpu": "1999999n", "memory": "1.5Gi", "gpu": 0.0019}]}
    status, answer, _ = api(operator, "POST", f"{BASE}/kube/pools", body)
    assert status == 201
    assert answer["hosts"] == [{"name": "n", "cpu": 0.001, "gpu": 0.001, "memory": 3 * 2**29}]


HOST: dict[str, Any] = {"name": "h", "VCPU": 1}


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({}, "aggregate", "1 to 255"),
        ({"aggregate": " ", "hosts": []}, "aggregate", "1 to 255"),
        ({"aggregate": "a" * 256, "hosts": []}, "aggregate", "1 to 255"),
        ({"aggregate": 7, "hosts": []}, "aggregate", "text"),
        ({"aggregate": "a"}, "hosts", "list"),
        ({"aggregate": "a", "hosts": {}}, "hosts", "list"),
        ({"aggregate": "a", "hosts": [HOST, 3]}, "hosts[1]", "object"),
        ({"aggregate": "a", "hosts": [{"VCPU": 1}]}, "hosts[0].name", "1 to 255"),
        ({"aggregate": "a", "hosts": [{"name": "h" * 256}]}, "hosts[0].name", "1 to 255"),
        ({"aggregate": "a", "hosts": [HOST, HOST]}, "hosts[1].name", "twice"),
        ({"aggregate": "a", "hosts": [HOST, HOST | {"name": "i", "VCPU": -1}]}, "hosts[1].VCPU", "between"),
        ({"aggregate": "a", "hosts": [{"name": "h", "VCPU": True}]}, "hosts[0].VCPU", "number"),
        ({"aggregate": "a", "hosts": [{"name": "h", "VCPU": "many"}]}, "hosts[0].VCPU", "500m"),
        ({"aggregate": "a", "hosts": [{"name": "h", "VCPU": 1e16}]}, "hosts[0].VCPU", "between"),
        ({"aggregate": "a", "hosts": [{"name": "h", "VCPU": [1]}]}, "hosts[0].VCPU", "number"),
        ({"aggregate": "a", "hosts": [{"name": "h", "vcpu": 1}]}, "hosts[0].vcpu", "VCPU, Memory (MB)"),
        ({"aggregate": "a", "hosts": [{"name": "h", "": 1}]}, "hosts[0].", "1 to 64"),
        ({"aggregate": "a", "hosts": [], "tenants": "lab"}, "tenants", "list"),
        ({"aggregate": "a", "hosts": [], "tenants": [1]}, "tenants", "list"),
        ({"aggregate": "a", "hosts": [], "tenants": ["nobody"]}, "tenants", "nobody"),
    ],
)
def test_what_is_refused_says_where_and_changes_nothing(
    api: Api, operator: Account, declared: Declared, body: object, field: str, says: str
) -> None:
    declared("vm", "a", h=4)
    status, answer, _ = api(operator, "POST", POOLS, body)
    assert (status, answer["error"]["code"], answer["error"]["field"]) == (400, "invalid", field), answer
    assert says in answer["error"]["message"]
    assert answer["error"]["message"].startswith(f"{field}:")
    assert list(HostResource.objects.values_list("total", flat=True)) == [4000]


def test_limits(api: Api, operator: Account) -> None:
    many = {f"r{number}": 1 for number in range(32)}
    path = f"{BASE}/any/pools"
    assert api(operator, "POST", path, {"aggregate": "a", "hosts": [{"name": "h", **many}]})[0] == 201
    status, answer, _ = api(
        operator, "POST", path, {"aggregate": "a", "hosts": [{"name": "h", **many, "one": 1}]}
    )
    assert (status, answer["error"]["field"]) == (400, "hosts[0]")
    hosts = [{"name": f"host-{number}", "slots": 4} for number in range(10_000)]
    status, answer, _ = api(operator, "POST", path, {"aggregate": "big", "hosts": hosts})
    assert (status, len(answer["hosts"])) == (201, 10_000)
    assert Host.objects.filter(aggregate__name="big").count() == 10_000
    status, answer, _ = api(
        operator, "POST", path, {"aggregate": "big", "hosts": [*hosts, {"name": "more", "slots": 1}]}
    )
    assert (status, answer["error"]["field"]) == (400, "hosts")


@pytest.mark.parametrize("kind", ["tasks", "a%20b", "a" * 129, "%2E%2E", "a%C3%A4"])
@pytest.mark.parametrize("rest", ["pools", "pools/a", "policy", "quotas", "quotas/o", "capacity"])
def test_no_queue_is_called_so(api: Api, operator: Account, kind: str, rest: str) -> None:
    status, answer, _ = api(operator, "GET", f"{BASE}/{kind}/{rest}")
    assert (status, answer["error"]["field"]) == (400, "type")


def test_names_in_paths_may_hold_anything(api: Api, operator: Account) -> None:
    for name, path in (
        ("zone/a b", "zone%2Fa%20b"),
        ("?&%", "%3F%26%25"),
        ("\N{SNOWMAN}\n", "%E2%98%83%0A"),
        ("/", "%2F/"),
        ("end/", "end%2F/"),
        ("..", "%2E%2E"),
    ):
        assert api(operator, "POST", POOLS, pool(name, h=1))[0] == 201
        status, answer, _ = api(operator, "GET", f"{POOLS}/{path}")
        assert (status, answer.get("aggregate")) == (200, name)
        assert api(operator, "DELETE", f"{POOLS}/{path}")[0] == 200
    assert not Aggregate.objects.filter(removed_at=None).exists()


def test_a_pool_that_shrinks_keeps_what_is_used(api: Api, operator: Account, declared: Declared) -> None:
    declared("vm", "a", h1=8, h2=8)
    enqueue(operator.tenant_id, "vm", vm(8, count=2))
    assert look("vm") == 1
    assert declared("vm", "a", h1=2) == 200
    assert sorted(HostResource.objects.values_list("total", "held", "largest")) == [
        (0, 8000, 8000),
        (2000, 8000, 8000),
    ]
    assert Booking.objects.count() == 2, "what is booked stays booked"
    assert api(operator, "GET", f"{POOLS}/a")[1]["hosts"] == [{"name": "h1", "VCPU": 2}]
    assert api(operator, "DELETE", f"{POOLS}/a")[0] == 200
    assert HostResource.objects.filter(total=0, held=8000).count() == 2
    declared("vm", "a", h1=16, h2=8)
    enqueue(operator.tenant_id, "vm", vm(8))
    assert look("vm") == 1, "h1 has 8 more than are used"
    assert Entry.objects.filter(status="running").count() == 2


def test_what_was_set_aside_is_back_in_line_when_capacity_grows(
    operator: Account, declared: Declared
) -> None:
    enqueue(operator.tenant_id, "vm", vm(4))
    enqueue(operator.tenant_id, "vm", vm(64))
    assert look("vm") == 0
    assert WaitingClass.objects.filter(aside=True).count() == 2
    declared("vm", "a", h1=8)
    assert not WaitingClass.objects.filter(aside=True).exists()
    assert look("vm") == 1
    assert WaitingClass.objects.get(waiting=1).aside, "64 fit nowhere"
    declared("other", "a", h1=64)
    assert WaitingClass.objects.get(waiting=1).aside, "another type's pool is no news"
    declared("vm", "b", h1=64)
    assert look("vm") == 1


def test_a_tenant_sees_what_it_may_use(
    api: Api, operator: Account, account: Account, stranger: Account, declared: Declared
) -> None:
    declared("vm", "all", h=1)
    declared("vm", "ours", ["default"], h=1)
    declared("vm", "theirs", ["stranger"], h=1)
    declared("vm", "both", ["stranger", "default"], h=1)

    def seen(who: Account, path: str) -> list[tuple[str, list[str] | None]]:
        found = api(who, "GET", path)[1]
        rows = found if isinstance(found, list) else json.loads(found)["aggregates"]
        return [(row.get("aggregate", row.get("name")), row.get("tenants")) for row in rows]

    for path in (POOLS, f"{BASE}/vm/capacity"):
        assert seen(operator, path) == [
            ("all", None), ("both", ["default", "stranger"]), ("ours", ["default"]), ("theirs", ["stranger"])
        ]  # fmt: skip
        assert seen(account, path) == [("all", None), ("both", ["default"]), ("ours", ["default"])]
        assert seen(stranger, path) == [("all", None), ("both", ["stranger"]), ("theirs", ["stranger"])]
    hidden, nothing = (api(account, "GET", f"{POOLS}/{name}") for name in ("theirs", "nothing"))
    assert hidden[0] == nothing[0] == 404
    assert hidden[1]["error"]["message"].replace("theirs", "nothing") == nothing[1]["error"]["message"]
    declared("vm", "theirs", [], h=1)
    assert api(account, "GET", f"{POOLS}/theirs")[0] == 200, "opened to all"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "pools", pool("a", h=2)),
        ("DELETE", "pools/a", None),
        ("PUT", "policy", {"mode": "best_effort"}),
        ("PUT", "quotas/o", {"VCPU": 1}),
        ("DELETE", "quotas/o", None),
    ],
)
def test_changes_need_the_scope_operate(
    api: Api,
    operator: Account,
    account: Account,
    reader: Account,
    declared: Declared,
    method: str,
    path: str,
    body: Any,
) -> None:
    declared("vm", "a", h=1)
    assert api(operator, "PUT", f"{BASE}/vm/quotas/o", {"VCPU": 5})[0] == 200
    for who in (account, reader):
        status, answer, _ = api(who, method, f"{BASE}/vm/{path}", body)
        assert (status, answer["error"]["code"]) == (403, "forbidden")
    assert api(operator, method, f"{BASE}/vm/{path}", body)[0] == 200
    assert api(account, "PATCH", f"{BASE}/vm/{path}", {})[0] in (403, 405)


def test_lists_are_paged_by_name_in_two_queries(
    api: Api, operator: Account, declared: Declared, remembered: None
) -> None:
    for name in ("c", "a", "b", "d"):
        declared("vm", name, h1=1, h2=1)
    with CaptureQueriesContext(connection) as queries:
        assert len(api(operator, "GET", POOLS)[1]) == 4
    assert len(queries) == 2
    status, first, response = api(operator, "GET", f"{POOLS}?limit=3")
    assert [row["aggregate"] for row in first] == ["a", "b", "c"]
    link = response["Link"].partition(">")[0].removeprefix("<http://testserver")
    status, rest, response = api(operator, "GET", link)
    assert (status, [row["aggregate"] for row in rest]) == (200, ["d"])
    assert "Link" not in response
    assert api(operator, "GET", f"{POOLS}?name=x")[0] == 400
    assert api(operator, "GET", f"{POOLS}?limit=0")[0] == 400


def test_a_declaration_is_a_fixed_number_of_queries(
    api: Api, operator: Account, declared: Declared, remembered: None
) -> None:
    counts = []
    api(operator, "GET", POOLS)  # who asks is looked up once
    for number in (2, 200):
        hosts = {f"h{index}": 1.0 for index in range(number)}
        with CaptureQueriesContext(connection) as queries:
            assert api(operator, "POST", POOLS, pool(f"a{number}", **hosts))[0] == 201
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 20, counts


def test_the_same_key_declares_once(api: Api, operator: Account) -> None:
    first = api(operator, "POST", POOLS, pool("a", h=1), Idempotency_Key="k")
    again = api(operator, "POST", POOLS, pool("a", h=1), Idempotency_Key="k")
    other = api(operator, "POST", POOLS, pool("a", h=2), Idempotency_Key="k")
    assert (first[:2], other[0]) == (again[:2], 409)
    assert first[0] == 201
    assert IdempotencyKey.objects.count() == 1


def test_a_tenant_that_is_switched_off_can_be_named(declared: Declared) -> None:
    Tenant.objects.create(name="off", active=False)
    assert declared("vm", "a", ["off"], h=1) == 201


def test_what_a_provider_reports_is_not_declared(api: Api, operator: Account, declared: Declared) -> None:
    declared("vm", "a", h=1)
    TypePolicy.objects.create(type="vm", provider="placement")
    for method, path, body in (("POST", POOLS, pool("b", h=1)), ("DELETE", f"{POOLS}/a", None)):
        status, answer, _ = api(operator, method, path, body)
        assert (status, answer["error"]["code"]) == (409, "conflict")
        assert "placement" in answer["error"]["message"]
    assert Aggregate.objects.filter(removed_at=None).count() == 1


@pytest.mark.django_db(transaction=True)
def test_operators_at_once_and_entries_that_end(operator: Account, declared: Declared) -> None:
    """Declarations of the same aggregate, removals and looks do not wait for one another for ever."""
    declared("vm", "a", h1=4, h2=4)
    for _ in range(16):
        enqueue(operator.tenant_id, "vm", vm(2))
    looking = threading.Event()

    def change(number: int) -> None:
        wanted = PoolRequest("a", [HostAmounts(f"h{index}", {"VCPU": 4000}, {}) for index in (1, 2)], [])
        for turn in range(8):
            if number == 0 and turn % 2:
                with contextlib.suppress(NotFound):
                    services.remove_pool("vm", "a")
            elif number == 1:
                services.set_quotas(operator.tenant_id, "vm", "owner", {"VCPU": 6000 + turn})
            else:
                services.declare_pool("vm", wanted)

    def work(number: int) -> None:
        try:
            change(number)
        finally:
            connection.close()

    def end_and_look() -> None:
        try:
            while not looking.is_set():
                look("vm")
                for entry in Entry.objects.filter(status="running"):
                    with transaction.atomic(), connection.cursor() as cursor:
                        locks.share(cursor, "vm")
                        Queue.objects.select_for_update(no_key=True).get(pk=entry.queue_id)
                        changed = Entry.objects.filter(pk=entry.pk, status="running")
                        assert changed.update(status="finished", ended_at=timezone.now())
                        booking.give_back(cursor, [entry.pk])
        finally:
            connection.close()

    with ThreadPoolExecutor(5) as pool_of_threads:
        ending = pool_of_threads.submit(end_and_look)
        for done in [pool_of_threads.submit(work, number) for number in range(4)]:
            done.result(limit(60))
        services.declare_pool("vm", PoolRequest("a", [HostAmounts("h1", {"VCPU": 4000}, {})], []))
        wait_until(lambda: not Entry.objects.exclude(status="finished").exists(), why="all have run")
        looking.set()
        ending.result(limit(60))
    assert not Booking.objects.exists()
    assert not HostResource.objects.exclude(held=0).exists()
    assert list(OwnerHolding.objects.values_list("quota", "held")) == [(6007, 0)]


def test_only_what_differs_is_written(declared: Declared) -> None:
    """A declaration of thousands of hosts holds up admission no longer than its changes take."""

    def versions() -> dict[str, str]:
        with connection.cursor() as cursor:
            cursor.execute(
                """SELECT h.name, concat(h.ctid, ' ', r.ctid, ' ', r.total) FROM queues_host h
                   JOIN queues_hostresource r ON r.host_id = h.id"""
            )
            return dict(cursor.fetchall())

    declared("vm", "a", h1=1, h2=2, h3=3)
    before = versions()
    declared("vm", "a", h1=1, h2=2, h3=3)
    assert versions() == before
    declared("vm", "a", h1=1, h2=4)
    after = versions()
    assert {name for name in after if after[name] != before[name]} == {"h2", "h3"}
    assert list(HostResource.objects.order_by("host__name").values_list("total", "largest")) == [
        (1000, 1000),
        (4000, 4000),
        (0, 3000),
    ]
