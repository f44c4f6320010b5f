"""What the OpenAPI document says about tenants, users, members and tokens. As ``workers.api.schema``."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter

from workers.api.schema import KEY, PAGE, asked, operation, shown
from workers.api.serializers import ErrorSerializer
from workers.api.tenancy import serializers as s

TOKEN_EXAMPLE: Final[dict[str, Any]] = {
    "id": 3,
    "user": "admin",
    "name": "nightly builds",
    "prefix": "gnt_Xy1_",
    "scopes": ["read", "submit"],
    "created_at": "2026-11-22T10:00:00.000000Z",
    "expires_at": "2027-11-22T10:00:00.000000Z",
    "revoked_at": None,
}
TENANT_EXAMPLE: Final[dict[str, Any]] = {
    "name": "lab",
    "title": "The laboratory",
    "active": True,
    "trusted_with_worker_account": False,
    "policy": {"commands": True},
    "limits": {"waiting_runs": 5000},
    "retention": {"runs_d": 30, "families": {"tasks": {"logs_d": 3}}},
    "created_at": "2026-11-22T10:00:00.000000Z",
}
USER_EXAMPLE: Final[dict[str, Any]] = {
    "name": "ann",
    "email": "",
    "active": True,
    "superuser": False,
    "tenants": [{"name": "lab", "default": True}],
    "created_at": "2026-11-22T10:00:00.000000Z",
}

ME: Final = operation(
    "me",
    "identity",
    "Who am I?",
    {200: s.MeSerializer},
    examples=[
        shown(
            "a token's user",
            {
                "user": "ann",
                "tenant": "lab",
                "tenants": ["lab"],
                "scopes": ["read", "submit"],
                "via": "token",
            },
        )
    ],
)
TOKENS: Final = operation(
    "tokens_list",
    "identity",
    "List one's tokens; an operator those of another user",
    {200: s.TokenSerializer(many=True)},
    parameters=[OpenApiParameter("user", str, description="Another user; needs the scope operate."), *PAGE],
    examples=[shown("a token", TOKEN_EXAMPLE)],
)
TOKEN_CREATE: Final = operation(
    "tokens_create",
    "identity",
    "Make a token; its value is shown in this answer only",
    {201: s.TokenWithValueSerializer, 409: ErrorSerializer},
    parameters=[KEY],
    request=s.NewTokenSerializer,
    examples=[
        asked(
            "for a year", {"name": "nightly builds", "scopes": ["read", "submit"], "expires_in_s": 31_536_000}
        ),
        shown("made", {**TOKEN_EXAMPLE, "token": "gnt_Xy1_..."}, "201"),
    ],
)
_TOKEN_ID: Final = OpenApiParameter("token_id", OpenApiTypes.INT64, OpenApiParameter.PATH)
TOKEN_REVOKE: Final = operation(
    "tokens_revoke",
    "identity",
    "End a token",
    {200: s.TokenSerializer, 404: ErrorSerializer},
    parameters=[_TOKEN_ID],
    examples=[shown("ended", {**TOKEN_EXAMPLE, "revoked_at": "2026-12-01T08:00:00.000000Z"})],
)

TENANTS: Final = operation(
    "tenants_list",
    "tenancy",
    "List tenants",
    {200: s.TenantSerializer(many=True)},
    parameters=PAGE,
    examples=[shown("a tenant", TENANT_EXAMPLE)],
)
TENANT_CREATE: Final = operation(
    "tenants_create",
    "tenancy",
    "Make a tenant",
    {201: s.TenantSerializer, 409: ErrorSerializer},
    parameters=[KEY],
    request=s.NewTenantSerializer,
    examples=[
        asked("a laboratory", {"name": "lab", "title": "The laboratory"}),
        shown("made", TENANT_EXAMPLE, "201"),
    ],
)
_TENANT_NAME: Final = OpenApiParameter("name", str, OpenApiParameter.PATH, description="The tenant's name.")
_USER_NAME: Final = OpenApiParameter("user", str, OpenApiParameter.PATH, description="The user's name.")
TENANT: Final = operation(
    "tenants_retrieve",
    "tenancy",
    "One tenant",
    {200: s.TenantSerializer, 404: ErrorSerializer},
    parameters=[_TENANT_NAME],
    examples=[shown("a tenant", TENANT_EXAMPLE)],
)
TENANT_CHANGE: Final = operation(
    "tenants_update",
    "tenancy",
    "Change a tenant's title, policy, limits, retention, or whether it is active",
    {200: s.TenantSerializer, 404: ErrorSerializer},
    parameters=[_TENANT_NAME],
    request=s.TenantChangeSerializer,
    examples=[asked("forbid commands", {"policy": {"commands": False}}), shown("changed", TENANT_EXAMPLE)],
)
MEMBERS: Final = operation(
    "members_list",
    "tenancy",
    "The users of a tenant",
    {200: s.MemberSerializer(many=True), 404: ErrorSerializer},
    parameters=[_TENANT_NAME, *PAGE],
    examples=[shown("a member", {"user": "ann", "default": True})],
)
MEMBER_PUT: Final = operation(
    "members_put",
    "tenancy",
    "Put a user into a tenant",
    {200: s.MemberSerializer, 404: ErrorSerializer},
    parameters=[_TENANT_NAME, _USER_NAME],
    request=s.MemberChangeSerializer,
    examples=[
        asked("as its default tenant", {"default": True}),
        shown("a member", {"user": "ann", "default": True}),
    ],
)
MEMBER_REMOVE: Final = operation(
    "members_remove",
    "tenancy",
    "Take a user out of a tenant",
    {200: s.MemberSerializer, 404: ErrorSerializer},
    parameters=[_TENANT_NAME, _USER_NAME],
    examples=[shown("no member any more", {"user": "ann", "default": False})],
)
USERS: Final = operation(
    "users_list",
    "tenancy",
    "List users",
    {200: s.UserSerializer(many=True)},
    parameters=PAGE,
    examples=[shown("a user", USER_EXAMPLE)],
)
USER_CREATE: Final = operation(
    "users_create",
    "tenancy",
    "Make a user",
    {201: s.UserSerializer, 404: ErrorSerializer, 409: ErrorSerializer},
    parameters=[KEY],
    request=s.NewUserSerializer,
    examples=[asked("in a tenant", {"name": "ann", "tenants": ["lab"]}), shown("made", USER_EXAMPLE, "201")],
)
USER: Final = operation(
    "users_retrieve",
    "tenancy",
    "One user",
    {200: s.UserSerializer, 404: ErrorSerializer},
    parameters=[_USER_NAME],
    examples=[shown("a user", USER_EXAMPLE)],
)
USER_CHANGE: Final = operation(
    "users_update",
    "tenancy",
    "Switch a user off or on",
    {200: s.UserSerializer, 404: ErrorSerializer},
    parameters=[_USER_NAME],
    request=s.UserChangeSerializer,
    examples=[asked("off", {"active": False}), shown("changed", {**USER_EXAMPLE, "active": False})],
)
