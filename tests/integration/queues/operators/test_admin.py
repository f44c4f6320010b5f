"""Operators' pages for capacity: what they show, in how many queries, and that changes go the API's way."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from queues.admission.look import look
from queues.estimates import service
from queues.models import Aggregate, Calibration, OwnerHolding, Told, TypePolicy, WaitingClass
from queues.operators import services
from tests.integration.conftest import Api
from tests.integration.queues.operators.conftest import Declared, enqueue, pool, vm
from tests.support.fixtures import Account
from workers.messages import doorbell
from workers.models import AuditEntry
from workers.tenants import audit, tenancy

AGGREGATES, POLICIES, QUOTAS, ACCURACY = (
    f"/admin/queues/{name}/" for name in ("aggregate", "typepolicy", "ownerholding", "calibration")
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
    assert root.post(f"{QUOTAS}{row.pk}/delete/", {"post": "yes"}).status_code == 403


def test_a_quota_is_added_as_the_api_does_it(
    root: Client, operator: Account, django_capture_on_commit_callbacks: Any
) -> None:
    """For an owner that has asked for nothing yet; each complaint is at its field and says what to do."""
    given = {"tenant": operator.tenant_id, "kind": "vm", "owner_id": "team/7 ", "resource": "VCPU"}
    path = f"{QUOTAS}add/"
    page = text(root.get(path))
    assert "Of vm: VCPU, Memory (MB) or Disk (GB)." in page
    for changed, field, fix in (
        ({"amount": ""}, "amount", "required"),
        ({"amount": "-1"}, "amount", "VCPU: must be between 0 and"),
        ({"amount": "many"}, "amount", "is no amount: a number, or one like 500m or 1Gi"),
        ({"resource": "CPU"}, "resource", "the resources of type vm are VCPU, Memory (MB) and Disk (GB)"),
        ({"kind": "a b"}, "kind", "use 1 to 128 of the characters"),
        ({"kind": "tasks"}, "kind", "another family"),
        ({"owner_id": "  "}, "owner_id", "owner_id: must be text of 1 to 255 characters"),
        ({"tenant": "0"}, "tenant", "not one of the available choices"),
    ):
        answer = root.post(path, {**given, "amount": "4", **changed})
        errors = answer.context["adminform"].form.errors
        assert list(errors) == [field], changed
        assert fix in errors[field][0], changed
        assert fix.replace("'", "&#x27;") in text(answer)
    assert not OwnerHolding.objects.exists()
    with django_capture_on_commit_callbacks() as rung:
        answer = root.post(path, {**given, "amount": "1500m"})
    assert answer.status_code == 302
    assert doorbell.ring_duties in rung
    row = OwnerHolding.objects.get()
    assert (row.queue.tenant_id, row.queue.type) == (operator.tenant_id, "vm")
    assert (row.owner_id, row.resource, row.held, row.quota) == ("team/7 ", "VCPU", 0, 1500)
    answer = root.post(path, {**given, "amount": "9"})
    assert "team/7  has a quota of 1.5 VCPU already" in str(answer.context["adminform"].form.errors["amount"])
    OwnerHolding.objects.update(quota=None, held=700)
    assert root.post(path, {**given, "amount": "9"}).status_code == 302
    row.refresh_from_db()
    assert (row.held, row.quota) == (700, 9000), "it holds something, and has a quota now"
    assert audit.flush()
    told = [entry.about for entry in AuditEntry.objects.filter(status=302).order_by("id")]
    assert told == [{"owner_id": "team/7 "}] * 2


def test_the_accuracy_of_estimates_is_that_of_the_api(root: Client, operator: Account) -> None:
    for index in range(12):
        kind = f"t{index:02}"
        Calibration.objects.create(type=kind, tilt=0.693)
        Told.objects.bulk_create(
            Told(
                entry_id=1000 * index + number, type=kind, p50_s=10, p90_s=20, raw_s=20, method="forward",
                waited_s=40 if number % 4 == 0 else 12, missed=number % 4 == 0, admitted_at=timezone.now(),
            )
            for number in range(20)
        )  # fmt: skip
    Calibration.objects.create(type="none")
    with CaptureQueriesContext(connection) as queries:
        page = text(root.get(ACCURACY))
    assert len(queries) <= 6
    told = service.published("t03")
    assert (told["coverage_p90"], told["samples"]) == (0.75, 20)
    row = page[page.index("t03") :].partition("</tr>")[0]
    for shown in ("75.0%", f"{told['median_error']:.1%} of the wait", ">20<", ">forward<", "x 2.00"):
        assert shown in row
    assert ">-<" in page[page.index(">none<") :].partition("</tr>")[0]
    assert "1 accuracy of estimates" in text(root.get(f"{ACCURACY}?q=t03"))


def test_the_audit_log_names_the_aggregate(api: Api, operator: Account, root: Client) -> None:
    for name, status in (("rack-1", 201), ("", 400)):
        assert api(operator, "POST", "/api/v1/queues/vm/pools", pool(name, h=4))[0] == status
    assert audit.flush()
    assert [entry.about for entry in AuditEntry.objects.order_by("id")] == [
        {"type": "vm", "aggregate": "rack-1"},
        {"type": "vm"},
    ]
    assert "aggregate rack-1" in text(root.get("/admin/workers/auditentry/"))


def test_others_see_none_of_it(client: Client, account: Account) -> None:
    client.force_login(User.objects.get(username=account.user))
    for path in (AGGREGATES, POLICIES, QUOTAS, f"{QUOTAS}add/", ACCURACY):
        assert client.get(path).status_code == 302
