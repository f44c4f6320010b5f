"""/api/v1/tenants and /api/v1/users: operators say who owns work and who belongs to whom."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Prefetch
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from workers.api.answers import ApiView, Page, answer, checked, created, known_parameters
from workers.api.tenancy import schema, serializers, shapes
from workers.models import Membership, Tenant
from workers.tenants import tenancy
from workers.tenants.identity import Identity
from workers.vocabulary.errors import NotFound


class TenantsView(ApiView):
    """/api/v1/tenants"""

    required_scope = "operate"

    @extend_schema(**schema.TENANTS)
    def get(self, request: Request) -> HttpResponse:
        """All tenants by name."""
        known_parameters(request, ("limit", "cursor"))
        page = Page.of(request)
        rows = Tenant.objects.filter(name__gt=page.cursor).order_by("name")
        return page.answer(request, list(rows[: page.limit + 1]), shapes.tenant, lambda row: row.name)

    @extend_schema(**schema.TENANT_CREATE)
    def post(self, request: Request) -> HttpResponse:
        """Make a tenant."""
        wanted = checked(serializers.NewTenantSerializer(data=request.data))

        def create() -> tuple[int, dict[str, Any]]:
            row = tenancy.create_tenant(
                wanted["name"],
                title=wanted.get("title", ""),
                given_policy=wanted.get("policy"),
                given_limits=wanted.get("limits"),
                retention=wanted.get("retention"),
            )
            return 201, shapes.tenant(row)

        status, body = created(request, self.who(), create)
        return answer(body, status)


class TenantView(ApiView):
    """/api/v1/tenants/{name}"""

    required_scope = "operate"

    @extend_schema(**schema.TENANT)
    def get(self, request: Request, name: str) -> HttpResponse:
        """One tenant."""
        row = Tenant.objects.filter(name=name).first()
        if row is None:
            raise NotFound(f"there is no tenant {name}")
        return answer(shapes.tenant(row))

    @extend_schema(**schema.TENANT_CHANGE)
    def patch(self, request: Request, name: str) -> HttpResponse:
        """Change what is given."""
        wanted = checked(serializers.TenantChangeSerializer(data=request.data))
        row = tenancy.update_tenant(
            name,
            title=wanted.get("title"),
            active=wanted.get("active"),
            opened=wanted.get("policy"),
            given_limits=wanted.get("limits"),
            retention=wanted.get("retention"),
        )
        return answer(shapes.tenant(row))


def _member(row: Membership) -> dict[str, Any]:
    return {"user": row.user.get_username(), "default": row.is_default}


class MembersView(ApiView):
    """/api/v1/tenants/{name}/members"""

    required_scope = "operate"

    @extend_schema(**schema.MEMBERS)
    def get(self, request: Request, name: str) -> HttpResponse:
        """The tenant's users by name."""
        known_parameters(request, ("limit", "cursor"))
        page = Page.of(request)
        if not Tenant.objects.filter(name=name).exists():
            raise NotFound(f"there is no tenant {name}")
        rows = Membership.objects.select_related("user").filter(
            tenant__name=name, user__username__gt=page.cursor
        )
        found = list(rows.order_by("user__username")[: page.limit + 1])
        return page.answer(request, found, _member, lambda row: row.user.get_username())


def _guard(who: Identity, user: str, what: str) -> None:
    """Nobody but a superuser changes a superuser, or for which tenants one acts."""
    if tenancy.find_user(user).is_superuser and not who.superuser:
        raise PermissionDenied(f"only a superuser can {what}")


class MemberView(ApiView):
    """/api/v1/tenants/{name}/members/{user}"""

    required_scope = "operate"

    @extend_schema(**schema.MEMBER_PUT)
    def put(self, request: Request, name: str, user: str) -> HttpResponse:
        """Put a user into the tenant."""
        wanted = checked(serializers.MemberChangeSerializer(data=request.data))
        _guard(self.who(), user, "put another one into a tenant")
        row = tenancy.add_member(name, user, default=wanted.get("default", False))
        return answer({"user": user, "default": row.is_default})

    @extend_schema(**schema.MEMBER_REMOVE)
    def delete(self, request: Request, name: str, user: str) -> HttpResponse:
        """Take a user out of the tenant."""
        _guard(self.who(), user, "take another one out of a tenant")
        tenancy.remove_member(name, user)
        return answer({"user": user, "default": False})


def _users() -> Any:
    theirs = Membership.objects.select_related("tenant").order_by("-is_default", "tenant__name")
    return get_user_model().objects.prefetch_related(Prefetch("memberships", queryset=theirs))


def _user(row: Any) -> dict[str, Any]:
    return shapes.user(row, list(row.memberships.all()))


class UsersView(ApiView):
    """/api/v1/users"""

    required_scope = "operate"

    @extend_schema(**schema.USERS)
    def get(self, request: Request) -> HttpResponse:
        """All users by name."""
        known_parameters(request, ("limit", "cursor"))
        page = Page.of(request)
        rows = _users().filter(username__gt=page.cursor).order_by("username")
        return page.answer(request, list(rows[: page.limit + 1]), _user, lambda row: row.get_username())

    @extend_schema(**schema.USER_CREATE)
    def post(self, request: Request) -> HttpResponse:
        """Make a user."""
        wanted = checked(serializers.NewUserSerializer(data=request.data))
        superuser = wanted.get("superuser", False)
        if superuser and not self.who().superuser:
            raise PermissionDenied("only a superuser can make another one")

        def create() -> tuple[int, dict[str, Any]]:
            with transaction.atomic():
                tenancy.create_user(
                    wanted["name"],
                    password=wanted.get("password", ""),
                    email=wanted.get("email", ""),
                    superuser=superuser,
                )
                for tenant in wanted.get("tenants", ()):
                    tenancy.add_member(tenant, wanted["name"])
            return 201, _user(_users().get(username=wanted["name"]))

        status, body = created(request, self.who(), create)
        return answer(body, status)


class UserView(ApiView):
    """/api/v1/users/{user}"""

    scopes: ClassVar[dict[str, str]] = {"GET": "operate", "PATCH": "operate"}

    @extend_schema(**schema.USER)
    def get(self, request: Request, user: str) -> HttpResponse:
        """One user."""
        row = _users().filter(username=user).first()
        if row is None:
            raise NotFound(f"there is no user {user}")
        return answer(_user(row))

    @extend_schema(**schema.USER_CHANGE)
    def patch(self, request: Request, user: str) -> HttpResponse:
        """Switch a user off or on."""
        wanted = checked(serializers.UserChangeSerializer(data=request.data))
        _guard(self.who(), user, "change another one")
        if "active" in wanted:
            tenancy.set_user_active(user, wanted["active"])
        return answer(_user(_users().get(username=user)))
