"""The admin tells no masked value through its filters, and lets nobody but superusers touch a superuser."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.test import Client, RequestFactory
from pytest_django import Settings

from config.http import login
from config.http.throttles import SharedBuckets
from tests.integration.conftest import Api
from tests.support.engine import submit
from tests.support.fixtures import Account
from workers.models import Membership
from workers.tenants import tenancy

PASSWORD = "correct horse battery staple"


@pytest.fixture
def root(db: None) -> Client:
    browser = Client()
    browser.force_login(tenancy.create_user("root", password=PASSWORD, superuser=True))
    return browser


@pytest.fixture
def helper(db: None) -> Client:
    """Somebody who may use the admin, with every right that can be given without being a superuser."""
    user = User.objects.create(username="helper", is_staff=True)
    user.user_permissions.set(Permission.objects.all())
    browser = Client()
    browser.force_login(user)
    return browser


def test_no_page_filters_by_what_it_does_not_declare(root: Client, account: Account) -> None:
    """Catches ?spec__env__SECRET__startswith=c, a question about a masked value, on any page."""
    submit(account.tenant_id, "true", env={"SECRET": "canary"})
    request = RequestFactory().get("/admin/")
    for model, page in admin.site._registry.items():
        name = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        for field in model._meta.get_fields():
            for lookup in (
                f"{field.name}__startswith",
                f"{field.name}__regex",
                f"{field.name}__x__startswith",
            ):
                assert not page.lookup_allowed(lookup, "c", request), (name, lookup)
        simple = {getattr(item, "parameter_name", "") for item in page.list_filter}
        declared = {item for item in page.list_filter if isinstance(item, str)}
        for other in {field.name for field in model._meta.concrete_fields} - declared - simple:
            assert not page.lookup_allowed(other, "c", request), (name, other)
        for one in declared:
            assert page.lookup_allowed(f"{one}__exact", "c", request), (name, one)
        assert root.get(name).status_code == 200, name
    for query in ("spec__env__SECRET__startswith=c", "tenant__policy__x=1"):
        assert root.get(f"/admin/workers/run/?{query}").status_code == 400, query
    for user in ("password__startswith=p", "password=p", "auth_tokens__digest__startswith=0"):
        assert root.get(f"/admin/auth/user/?{user}").status_code in (302, 400), user
    for good in (
        "run/?state__exact=PENDING",
        f"run/?tenant__id__exact={account.tenant_id}",
        "run/?family=tasks",
    ):
        page_shown = root.get(f"/admin/workers/{good}")
        assert (page_shown.status_code, b"1 run" in page_shown.content) == (200, True), good


def test_only_a_superuser_touches_a_superuser(api: Api, helper: Client, operator: Account) -> None:
    root = tenancy.create_user("root", password=PASSWORD, superuser=True)
    tenancy.create_tenant("lab")
    tenancy.add_member("default", "root")
    for method, path, body in (
        ("DELETE", "/api/v1/tenants/default/members/root", None),
        ("PUT", "/api/v1/tenants/lab/members/root", {"default": True}),
        ("PUT", "/api/v1/tenants/default/members/root", {}),
        ("PATCH", "/api/v1/users/root", {"active": False}),
    ):
        assert api(operator, method, path, body)[0] == 403, (method, path)
    member = Membership.objects.get(user=root)
    assert (member.tenant.name, member.is_default) == ("default", True)
    form = {
        "title": "", "limits": "{}", "policy": "{}", "retention": "{}", "active": "on",
        "memberships-TOTAL_FORMS": "1", "memberships-INITIAL_FORMS": "1", "memberships-0-id": str(member.pk),
        "memberships-0-tenant": str(member.tenant_id), "memberships-0-user": str(root.pk),
        "memberships-0-DELETE": "on",
    }  # fmt: skip
    assert helper.post(f"/admin/workers/tenant/{member.tenant_id}/change/", form).status_code == 302
    assert Membership.objects.filter(user=root, is_default=True).exists()
    page = f"/admin/auth/user/{root.pk}"
    assert helper.post(f"{page}/change/", {"username": "root", "is_active": ""}).status_code == 403
    assert helper.post(f"{page}/delete/", {"post": "yes"}).status_code == 403
    assert helper.get(f"{page}/password/").status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": str(root.pk), "post": "yes"}
    helper.post("/admin/auth/user/", chosen)
    me = User.objects.get(username="helper")
    helper.post(
        f"/admin/auth/user/{me.pk}/change/", {"username": "helper", "is_active": "on", "is_superuser": "on"}
    )
    assert not User.objects.get(username="helper").is_superuser
    assert User.objects.get(username="root").is_active


def test_the_spellings_of_a_name_share_its_limit(
    client: Client, db: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a guess more for each way to write r, o and t that Django takes for them."""
    monkeypatch.setattr(login, "_names", SharedBuckets("test-spellings", 2, 0.001))
    settings.GANTRY_TRUSTED_PROXIES = ["127.0.0.1/32"]
    told = [
        client.post(
            "/admin/login/",
            {"username": name, "password": "wrong"},
            headers={"X-Forwarded-For": f"198.51.100.{number}"},
        ).status_code
        for number, name in enumerate(
            ("root", "\uff52oot", "ro\u24det", "\U0001d42boot", "roo\U0001d42d", " ROOT ")
        )
    ]
    assert told == [200, 200, 429, 429, 429, 429]
