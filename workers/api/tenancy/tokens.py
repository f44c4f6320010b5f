"""/api/v1/me and /api/v1/tokens: who one is, and the credentials that one presents.

Everybody handles their own tokens, with their own scopes at most and no longer than the token they present;
operators handle everybody's, but a superuser's only as a superuser.
"""

from __future__ import annotations

import time
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from workers.api.answers import ApiView, Page, answer, checked, created, known_parameters
from workers.api.tenancy import schema, serializers, shapes
from workers.models import Membership, Token
from workers.tenants import tenancy
from workers.tenants.identity import Identity


class MeView(ApiView):
    """/api/v1/me"""

    @extend_schema(**schema.ME)
    def get(self, request: Request) -> HttpResponse:
        """Who the presented credentials are, and what they may do."""
        who = self.who()
        names = [who.tenant_name]
        if who.user_id is not None:
            mine = Membership.objects.filter(user_id=who.user_id, tenant__active=True)
            names = list(
                mine.order_by("-is_default", "tenant__name").values_list("tenant__name", flat=True)[:1000]
            )
        return answer(
            {
                "user": who.user_name,
                "tenant": who.tenant_name,
                "tenants": names,
                "scopes": sorted(who.scopes),
                "via": who.via,
            }
        )


def _whose(who: Identity, name: str | None) -> Any:
    """The user whose tokens are meant; only an operator may name another one."""
    if name is None or name == who.user_name:
        if who.user_id is None:
            raise PermissionDenied("a request without credentials has no tokens: present one")
        return tenancy.find_user(who.user_name)
    if not who.operates:
        raise PermissionDenied("the tokens of another user need the scope operate")
    user = tenancy.find_user(name)
    if user.is_superuser and not who.superuser:
        raise PermissionDenied("the tokens of a superuser need a superuser")
    return user


def _limits(who: Identity, scopes: list[str], expires_in_s: int | None) -> int | None:
    """Refuse more scopes than one's own; returns the lifetime, no longer than that of the token presented."""
    if who.operates:
        return expires_in_s
    beyond = sorted(set(scopes) - who.scopes)
    if beyond:
        raise PermissionDenied(f"you do not have the scope {', '.join(beyond)} yourself")
    if who.ends is None:
        return expires_in_s
    left = max(1, int(who.ends - time.time()))
    return left if expires_in_s is None else min(expires_in_s, left)


class TokensView(ApiView):
    """/api/v1/tokens"""

    @extend_schema(**schema.TOKENS)
    def get(self, request: Request) -> HttpResponse:
        """One's own tokens, the newest first; ended ones too."""
        known_parameters(request, ("user", "limit", "cursor"))
        page = Page.of(request)
        user = _whose(self.who(), request.query_params.get("user"))
        rows = Token.objects.select_related("user").filter(user=user).order_by("-pk")
        if (last := page.number()) is not None:
            rows = rows.filter(pk__lt=last)
        return page.answer(request, list(rows[: page.limit + 1]), shapes.token, lambda row: row.pk)

    @extend_schema(**schema.TOKEN_CREATE)
    def post(self, request: Request) -> HttpResponse:
        """Make a token."""
        wanted = checked(serializers.NewTokenSerializer(data=request.data))
        who = self.who()
        user = _whose(who, wanted.get("user"))
        lifetime = _limits(who, wanted["scopes"], wanted.get("expires_in_s"))

        def create() -> tuple[int, dict[str, Any]]:
            row, value = tenancy.create_token(
                user, name=wanted["name"], scopes=wanted["scopes"], expires_in_s=lifetime
            )
            return 201, {**shapes.token(row), "token": value}

        status, body = created(request, who, create, secret=True)
        return answer(body, status)


class TokenView(ApiView):
    """/api/v1/tokens/{id}"""

    @extend_schema(**schema.TOKEN_REVOKE)
    def delete(self, request: Request, token_id: int) -> HttpResponse:
        """End a token."""
        who = self.who()
        row = Token.objects.select_related("user").filter(pk=token_id).first() if who.operates else None
        if row is not None and row.user_id != who.user_id:
            _whose(who, row.user.get_username())
            return answer(shapes.token(tenancy.revoke_token(token_id)))
        return answer(shapes.token(tenancy.revoke_token(token_id, user_id=who.user_id or 0)))
