"""From a request to an ``Identity``, and from a view's scope to a permission. Contract page 00, "Identity".

Tried in this order: Authorization (Bearer, Basic), X-Token, the admin's session, a trusted network. A
credential that is given and wrong ends it: nothing weaker is tried. A token that is remembered costs no SQL
(``workers.tenants.identity``). Must not import views.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from rest_framework.authentication import BaseAuthentication, CSRFCheck
from rest_framework.exceptions import PermissionDenied, Throttled
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from structlog.contextvars import bind_contextvars

from config.http import peers, throttles
from workers.tenants import identity
from workers.tenants.identity import SCOPES, CredentialRefused, Identity, TenantRefused, Via

if TYPE_CHECKING:  # rest_framework.views loads this module while it loads itself
    from rest_framework.views import APIView

__all__ = ["SCOPES", "CredentialRefused", "GantryAuthentication", "HasScope", "Identity", "identify"]

#: A header that is there but blank: servers hand over one that is not ASCII as "". It must not act for the
#: default tenant, and no tenant has this name.
NO_TENANT: Final = " "
SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))
#: Failed credentials per address: generous, because many clients may stand behind one gateway.
_failures: peers.Buckets | throttles.SharedBuckets = throttles.SharedBuckets("failed", 60, 1)

_MISSING: Final = (
    "no credentials: send Authorization: Bearer <token>, X-Token: <token>, or HTTP Basic with a token as "
    "password"
)


class GantryAuthentication(BaseAuthentication):
    """DRF's hook: ``request.auth`` (and ``request.user``) is the Identity; nobody passes without one."""

    def authenticate(self, request: Request) -> tuple[Any, Any]:
        http = request._request
        found = identify(http)
        http.identity = found  # type: ignore[attr-defined]  # for the access log
        bind_contextvars(tenant=found.tenant_name)
        if found.requests_per_s:
            _spend(http, found)
        return found, found

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def _spend(http: HttpRequest, found: Identity) -> None:
    """One of the tenant's requests of this second. ``http.rate`` is (limit, left), for the headers."""
    wait, left = throttles.rates.take(found.tenant_id, found.requests_per_s)
    http.rate = (found.requests_per_s, left)  # type: ignore[attr-defined]
    if wait:
        raise Throttled(
            wait,
            f"your tenant sends more than {found.requests_per_s} requests a second (requests_per_s): "
            "slow down, or ask an operator for a higher limit",
        )


class HasScope(BasePermission):
    """The view's scope for the method: ``required_scope``, or ``scopes`` by method; else read or submit."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        method = request.method or "GET"
        if method == "OPTIONS":
            return True
        needed: str | None = getattr(view, "required_scope", None)
        if needed is None:
            by_method: dict[str, str] = getattr(view, "scopes", {})
            default = "read" if method in SAFE else "submit"
            needed = by_method.get("GET" if method == "HEAD" else method, default)
        scopes = cast(Identity, request.auth).scopes
        if needed in scopes:
            return True
        raise PermissionDenied(
            f"this needs the scope {needed}; yours are {', '.join(sorted(scopes)) or 'none'}"
        )


def identify(http: HttpRequest) -> Identity:
    """Who sends this request, and for which tenant. Raises CredentialRefused, TenantRefused or Throttled."""
    meta = http.META
    tenant: str = meta.get("HTTP_X_TENANT_ID", "")
    if not tenant.strip() and "HTTP_X_TENANT_ID" in meta:
        tenant = NO_TENANT
    header: str | None = meta.get("HTTP_AUTHORIZATION")
    try:
        if header is not None:
            scheme, _, value = header.partition(" ")
            scheme = scheme.lower()
            if scheme == "bearer":
                return identity.by_token(_present(value), tenant)
            if scheme == "basic":
                return _by_basic(http, value, tenant)
            raise CredentialRefused(
                "token_invalid", "the Authorization header is of an unknown kind: use Bearer or Basic"
            )
        token: str | None = meta.get("HTTP_X_TOKEN")
        if token is not None:
            return identity.by_token(_present(token), tenant)
    except CredentialRefused as refused:
        if refused.code != "token_missing" and (wait := _failures.take(peers.household(meta))):
            raise Throttled(wait, "too many failed credentials from this address") from None
        raise
    return _by_session(http, tenant) or _by_network(http, tenant)


def _present(value: str) -> str:
    value = value.strip()
    if not value:
        raise CredentialRefused("token_missing", _MISSING)
    return value


def _by_basic(http: HttpRequest, value: str, tenant: str) -> Identity:
    """User name with one of the user's tokens as password: a password hash would cost 0.4 s a request."""
    try:
        name, colon, token = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        name = colon = token = ""
    if not colon:
        raise CredentialRefused(
            "token_invalid", "the Basic credentials cannot be read: send user:token in base64"
        )
    found = identity.by_token(_present(token), tenant, via="basic")
    if found.user_name != name:
        raise CredentialRefused("token_invalid", "this token is not one of that user's")
    refuse_accomplice(http)
    return found


def _no_response(*_: object, **__: object) -> HttpResponse:
    return HttpResponse()


def _by_session(http: HttpRequest, tenant: str) -> Identity | None:
    if settings.SESSION_COOKIE_NAME not in http.COOKIES:
        return None
    user: Any = getattr(http, "user", None)
    if user is None or not user.is_authenticated or not user.is_active:
        return None
    via: Via = "session"
    found = identity.for_user(
        user, tenant, scopes=SCOPES if user.is_superuser else ("read", "submit"), via=via
    )
    if http.method not in SAFE:
        refuse_accomplice(http)
        check = CSRFCheck(_no_response)
        check.process_request(http)
        # DRF's subclass answers with the reason's text instead of a page.
        if reason := check.process_view(http, _no_response, (), {}):
            raise PermissionDenied(f"a session needs the CSRF token: {reason}")
    return found


def _by_network(http: HttpRequest, tenant: str) -> Identity:
    if settings.GANTRY_TRUSTED_NETWORKS:
        address = peers.peer(http.META)
        acting = peers.trust(address, tenant)
        if acting is not None:
            refuse_accomplice(http)
            return identity.by_network(acting)
        if peers.is_trusted(address):
            raise TenantRefused(
                "this network may not act for the tenant in X-Tenant-Id: leave it out, or name one of its own"
            )
    raise CredentialRefused("token_missing", _MISSING)


def refuse_accomplice(http: HttpRequest) -> None:
    """403 for a change that a browser sends on behalf of another site.

    Sessions, Basic and networks are credentials that a browser adds by itself; a token in a header is not.
    """
    if http.method in SAFE:
        return
    site = http.META.get("HTTP_SEC_FETCH_SITE")
    if site is not None and site not in ("same-origin", "none"):
        raise PermissionDenied(f"a page of another site sent this (Sec-Fetch-Site: {site[:20]}): use a token")
    origin = http.META.get("HTTP_ORIGIN")
    if origin is not None and not _own_origin(origin, http):
        raise PermissionDenied("a page of another site sent this (its Origin is foreign): use a token")


def _own_origin(origin: str, http: HttpRequest) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    secure = parts.scheme == "https" or (parts.scheme == "http" and not settings.GANTRY_HTTPS)
    return secure and parts.netloc.lower() == http.get_host().lower()
