"""Operators' pages for capacity: what they show, in how many queries, and that changes go the API's way."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from queues.admission.look import look
from queues.models import Aggregate, OwnerHolding, TypePolicy, WaitingClass
from queues.operators import services
from tests.integration.queues.operators.conftest import Declared, enqueue, vm
from tests.support.fixtures import Account
from workers.messages import doorbell
from workers.models import AuditEntry
from workers.tenants import audit, tenancy

AGGREGATES, POLICIES, QUOTAS = (
    f"/admin/queues/{name}/" for name in ("aggregate", "typepolicy", "ownerholding")
)


@pytest.fixture
def root(db: None) -> Client:
    """A superuser's browser."""
    browser = Client()
    browser.force_login(tenancy.create_user("root", password="correct horse battery", superuser=True))
    return browser


def text(answer: Any) -> str:
    assert answer.status_code == 200, answer.status_code
    return str(answer.content.decode())


def test_aggregates_are_shown_with_what_is_used(root: Client, operator: Account, declared: Declared) -> None:
    declared("vm", "<rack>", h1=8, h2=0.5)
    declared("kube", "all", ["default"])
    enqueue(operator.tenant_id, "vm", vm(6))
    assert look("vm") == 1
    page = text(root.get(AGGREGATES))
    assert "VCPU 6 of 8.5" in page
    assert "&lt;rack&gt;" in page
    assert "<rack>" not in page
    assert "nothing" in page
    assert "all" in text(root.get(f"{AGGREGATES}?type__exact=kube"))
    row = Aggregate.objects.get(type="vm")
    page = text(root.get(f"{AGGREGATES}{row.pk}/change/"))
    assert "<td>h1<td>VCPU<td>8<td>6<td>2<td>" in page
    assert "/api/v1/queues/vm/capacity" in page
    declared("vm", "<rack>", h2=1)
    page = text(root.get(f"{AGGREGATES}{row.pk}/change/"))
    assert "<td>h1<td>VCPU<td>0<td>6<td>0<td>removed" in page
    assert root.post(f"{AGGREGATES}{row.pk}/change/", {"name": "x"}).status_code == 403


def test_lists_have_few_queries(root: Client, operator: Account, declared: Declared) -> None:
    counts = []
    for number in (2, 30):
        for index in range(number):
            declared("vm", f"{number}-{index}", h1=1, h2=2)
            services.set_quotas(operator.tenant_id, f"t{number}-{index}", "o", {"VCPU": 1000})
            TypePolicy.objects.create(type=f"{number}-{index}")
        for path in (AGGREGATES, POLICIES, QUOTAS):
            with CaptureQueriesContext(connection) as queries:
                text(root.get(path))
            counts.append(len(queries))
    assert counts[:3] == counts[3:]
    assert max(counts) <= 6, counts


def test_a_page_of_an_aggregate_is_bounded(root: Client, operator: Account) -> None:
    from queues.operators.parsing import PoolRequest
    from queues.pools import HostAmounts

    hosts = [HostAmounts(f"h{number:04}", {"VCPU": 1000}, {}) for number in range(600)]
    services.declare_pool("vm", PoolRequest("a", hosts, []))
    with CaptureQueriesContext(connection) as queries:
        page = text(root.get(f"{AGGREGATES}{Aggregate.objects.get().pk}/change/"))
    assert page.count("<td>VCPU<td>") == 500
    assert "h0499" in page
    assert "h0500" not in page
    assert len(queries) <= 9


def test_a_policy_is_made_and_changed_as_the_api_does_it(
    root: Client, operator: Account, django_capture_on_commit_callbacks: Any
) -> None:
    enqueue(operator.tenant_id, "vm", vm(1))
    assert look("vm") == 0
    with django_capture_on_commit_callbacks() as rung:
        assert root.post(f"{POLICIES}add/", {"type": "vm", "mode": "best_effort"}).status_code == 302
    assert doorbell.ring_duties in rung
    row = TypePolicy.objects.get()
    assert (row.type, row.mode, row.provider) == ("vm", "best_effort", "pools")
    assert not WaitingClass.objects.filter(aside=True).exists()
    TypePolicy.objects.update(options={"kept": 1}, trouble="kept")
    path = f"{POLICIES}{row.pk}/change/"
    assert "best_effort" in text(root.get(path))
    assert root.post(path, {"type": "other", "mode": "strict", "provider": "placement"}).status_code == 302
    row.refresh_from_db()
    assert (row.type, row.mode, row.provider) == ("vm", "strict", "pools")
    assert (row.options, row.trouble) == ({"kept": 1}, "kept")
    for wrong in ({"type": "a b", "mode": "strict"}, {"type": "x", "mode": "lax"}):
        assert "errorlist" in text(root.post(f"{POLICIES}add/", wrong))
    assert "errorlist" in text(root.post(f"{POLICIES}add/", {"type": "vm", "mode": "strict"})), "it is there"
    assert root.post(f"{POLICIES}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert TypePolicy.objects.count() == 1
    assert audit.flush()
    found = AuditEntry.objects.filter(status=302).order_by("id")
    assert [(entry.user_name, entry.route) for entry in found] == [
        ("root", "admin/queues/typepolicy/add/"),
        ("root", "admin/queues/typepolicy/<path:object_id>/change/"),
    ]


def test_a_quota_is_changed_as_the_api_does_it(
    root: Client, operator: Account, declared: Declared, django_capture_on_commit_callbacks: Any
) -> None:
    declared("vm", "a", h=8)
    enqueue(operator.tenant_id, "vm", vm(2), owner="team/<1>")
    assert look("vm") == 1
    row = OwnerHolding.objects.get()
    page = text(root.get(QUOTAS))
    assert "team/&lt;1&gt;" in page
    assert "1 quota" in text(root.get(f"{QUOTAS}?q=team/<1>"))
    assert "0 quotas" in text(root.get(f"{QUOTAS}?q=team"))
    path = f"{QUOTAS}{row.pk}/change/"
    with django_capture_on_commit_callbacks() as rung:
        assert root.post(path, {"amount": "2500m", "held": "0", "owner_id": "x"}).status_code == 302
    assert doorbell.ring_duties in rung
    row.refresh_from_db()
    assert (row.owner_id, row.held, row.quota) == ("team/<1>", 2000, 2500)
    assert 'value="2.5"' in text(root.get(path))
    page = text(root.post(path, {"amount": "-1"}))
    assert "errorlist" in page
    assert "between 0 and" in page
    assert root.post(path, {"amount": " "}).status_code == 302
    row.refresh_from_db()
    assert (row.held, row.quota) == (2000, None)
    for refused in (f"{QUOTAS}add/", f"{QUOTAS}{row.pk}/delete/"):
        assert root.post(refused, {"post": "yes"}).status_code == 403


def test_others_see_none_of_it(client: Client, account: Account) -> None:
    client.force_login(User.objects.get(username=account.user))
    for path in (AGGREGATES, POLICIES, QUOTAS):
        assert client.get(path).status_code == 302
