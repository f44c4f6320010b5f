"""Who is asking: a token or a trusted network's tenant becomes an ``Identity``, remembered for seconds.

The look-up is on the path of every request, so what it finds stays in the process for
``settings.TOKEN_CACHE_S``; a hit costs no SQL. The price, stated: a revoked token, a removed membership or
a closed policy may work for as long in each API process. Must not import HTTP or services.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from django.conf import settings

from workers.models import Membership, Tenant, Token
from workers.tenants import limits, policy
from workers.tenants.bounds import NO_BOUNDS, Bounds
from workers.vocabulary.errors import EngineError

Via = Literal["token", "basic", "session", "network", "signed"]

#: What a token may be for; contract page 00, "Identity".
SCOPES: Final = ("read", "submit", "operate", "worker")
#: Longest credential that is looked up at all, in characters.
LONGEST: Final = 512


@dataclass(frozen=True, slots=True)
class Identity:
    """On whose behalf a request acts. ``allowed`` and ``bounds``: the tenant's policy."""

    tenant_id: int
    tenant_name: str
    user_id: int | None
    user_name: str
    scopes: frozenset[str]
    via: Via
    superuser: bool = False
    allowed: frozenset[str] = frozenset()
    bounds: Bounds = NO_BOUNDS
    #: When the presented token ends, in seconds since 1970; None = never, or no token.
    ends: float | None = None
    #: The first characters of the token presented, for the audit log.
    token_prefix: str = ""
    #: Of the tenant; 0 = no limit.
    requests_per_s: int = 0

    #: Django and DRF ask a user for these two.
    is_authenticated = True
    is_active = True

    @property
    def operates(self) -> bool:
        """May it act on what all tenants share, and see every tenant's runs?"""
        return "operate" in self.scopes


class CredentialRefused(EngineError):
    """The credential is missing, unknown, revoked or expired; ``code`` says which."""

    def __init__(
        self, code: Literal["token_missing", "token_invalid", "token_expired"], message: str
    ) -> None:
        super().__init__(message)
        self.code = code


class TenantRefused(EngineError):
    """The user may not act for that tenant, or there is none of that name: one answer for both."""

    code = "forbidden"


@dataclass(frozen=True, slots=True)
class _Known:
    """A remembered answer: an identity or a refusal."""

    until: float
    identity: Identity | None
    refusal: tuple[str, str] | None = None


class _Memory:
    """Bounded, oldest out first. Plain dict operations, which are atomic: no lock on the hot path."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: dict[tuple[str, str], _Known] = {}

    def get(self, key: tuple[str, str]) -> _Known | None:
        known = self._items.get(key)
        return known if known is not None and known.until > time.monotonic() else None

    def put(self, key: tuple[str, str], known: _Known) -> None:
        if len(self._items) >= self._limit:
            for old in list(self._items)[: self._limit // 10]:
                self._items.pop(old, None)
        self._items.pop(key, None)
        self._items[key] = known

    def clear(self) -> None:
        self._items.clear()


_found = _Memory(10_000)
#: Apart from the good ones, so that a flood of bad credentials cannot push those out.
_refused = _Memory(2_000)
_NEGATIVE_S: Final = 1.0


def forget() -> None:
    """Drop everything remembered in this process: after a change of users, tenants or tokens."""
    _found.clear()
    _refused.clear()
    policy.forget()
    limits.forget()


def digest(token: str) -> str:
    """What is stored of a token. Looking this up leaks nothing about the token by its timing."""
    return hashlib.sha256(token.encode()).hexdigest()


def by_token(token: str, tenant: str = "", *, via: Via = "token") -> Identity:
    """Who presents this token, acting for the named tenant ("" = the user's default one).

    Raises CredentialRefused or TenantRefused.
    """
    if len(token) > LONGEST:
        raise CredentialRefused("token_invalid", "the token is not known: it is far too long to be one")
    key = (digest(token), tenant)
    known = _found.get(key) or _refused.get(key)
    if known is None:
        known = _look_up(key)
        (_found if known.identity is not None else _refused).put(key, known)
    if known.identity is None:
        code, message = known.refusal or ("token_invalid", "")
        if code == TenantRefused.code:
            raise TenantRefused(message)
        raise CredentialRefused("token_expired" if code == "token_expired" else "token_invalid", message)
    ends = known.identity.ends
    if ends is not None and ends <= time.time():
        raise CredentialRefused("token_expired", _expired(datetime.fromtimestamp(ends, UTC)))
    return known.identity if via == "token" else replace(known.identity, via=via)


def _look_up(key: tuple[str, str]) -> _Known:
    token = Token.objects.select_related("user").filter(digest=key[0]).first()
    if token is None:
        return _refusal("token_invalid", "the token is not known: check it, or ask an operator for a new one")
    if token.revoked_at is not None:
        return _refusal(
            "token_invalid", f"the token was revoked at {_stamp(token.revoked_at)}: ask for a new one"
        )
    if token.expires_at is not None and token.expires_at.timestamp() <= time.time():
        return _refusal("token_expired", _expired(token.expires_at))
    user: Any = token.user
    if not user.is_active:
        return _refusal("token_invalid", "the token's user is switched off: ask an operator")
    try:
        identity = for_user(user, key[1], scopes=token.scopes, via="token")
    except TenantRefused as refused:
        return _refusal(TenantRefused.code, refused.message)
    identity = replace(
        identity,
        ends=None if token.expires_at is None else token.expires_at.timestamp(),
        token_prefix=token.prefix,
    )
    return _Known(time.monotonic() + settings.TOKEN_CACHE_S, identity)


def for_user(user: Any, tenant: str, *, scopes: Iterable[str], via: Via) -> Identity:
    """The user acting for one of its tenants ("" = the default one). Raises TenantRefused."""
    memberships = Membership.objects.select_related("tenant").filter(user_id=user.pk, tenant__active=True)
    if tenant:
        membership = memberships.filter(tenant__name=tenant).first()
    else:
        membership = memberships.order_by("-is_default", "pk").first()
    if membership is None:
        raise TenantRefused(_not_in(user.get_username(), tenant))
    return Identity(
        tenant_id=membership.tenant_id,
        tenant_name=membership.tenant.name,
        user_id=user.pk,
        user_name=user.get_username(),
        scopes=frozenset(scopes) & frozenset(SCOPES),
        via=via,
        superuser=user.is_superuser,
        allowed=policy.allowed(membership.tenant.policy),
        requests_per_s=limits.effective(membership.tenant.limits).requests_per_s,
        bounds=policy.bounds(membership.tenant.policy),
    )


def by_network(tenant: str) -> Identity:
    """A peer of a trusted network acting for the named tenant, which its entry in the settings allows."""
    key = ("network", tenant)
    known = _found.get(key)
    if known is None:
        found = Tenant.objects.filter(name=tenant, active=True).first()
        if found is None:
            raise TenantRefused(_not_in("this network", tenant))
        identity = Identity(
            tenant_id=found.pk,
            tenant_name=found.name,
            user_id=None,
            user_name="network",
            scopes=frozenset(("read", "submit")),
            via="network",
            allowed=policy.allowed(found.policy),
            requests_per_s=limits.effective(found.limits).requests_per_s,
            bounds=policy.bounds(found.policy),
        )
        known = _Known(time.monotonic() + settings.TOKEN_CACHE_S, identity)
        _found.put(key, known)
    if known.identity is None:  # cannot be: only identities are put there
        raise TenantRefused(_not_in("this network", tenant))
    return known.identity


def _not_in(who: str, tenant: str) -> str:
    if not tenant:
        return f"{who} belongs to no tenant: an operator can add it to one"
    return f"{who} may not act for the tenant in X-Tenant-Id: leave the header out, or name one of its own"


def _refusal(code: str, message: str) -> _Known:
    until = time.monotonic() + min(settings.TOKEN_CACHE_S, _NEGATIVE_S)
    return _Known(until, None, (code, message))


def _expired(at: datetime) -> str:
    return f"the token expired at {_stamp(at)}: ask for a new one"


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
