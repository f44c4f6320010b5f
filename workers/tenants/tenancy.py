"""Tenants, users, memberships and tokens: what operators' commands and /api/v1 call, one transaction each.

Raises workers.vocabulary.errors. Must not import HTTP, views or what executes runs.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from workers.models import Membership, Tenant, Token
from workers.tenants import identity, limits, policy, retention_policy
from workers.vocabulary.errors import Conflict, InvalidInput, NotFound
from workers.vocabulary.references import ANY
from workers.vocabulary.specs import ALL_CONTAINERS

FIRST_TENANT: Final = "default"
FIRST_USER: Final = "admin"
#: "+", "," and "=" separate names in GANTRY_TRUSTED_NETWORKS.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_USABLE = re.compile(rf"[!-~]{{8,{identity.LONGEST}}}")
_HOW_TO_MAKE_ONE: Final = "python3 -c \"import secrets; print('gnt_' + secrets.token_urlsafe(32))\""
#: Serialises bootstraps that start at the same moment.
_BOOTSTRAP_LOCK: Final = 0x47414E5452590001


def create_tenant(
    name: str,
    *,
    title: str = "",
    given_policy: object = None,
    given_limits: object = None,
    retention: object = None,
) -> Tenant:
    """A new tenant. Conflict when the name is taken."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"the tenant name {name!r} is not usable: 1 to 64 letters, digits, dots, dashes or underscores, "
            "the first a letter or digit",
            field="name",
        )
    if len(title) > 255:
        raise InvalidInput("title is too long: at most 255 characters", field="title")
    chosen = {
        "policy": policy.checked(given_policy or {}),
        "limits": limits.checked(given_limits or {}),
        "retention": retention_policy.checked(retention or {}),
    }
    try:
        with transaction.atomic():
            return Tenant.objects.create(name=name, title=title, **chosen)
    except IntegrityError:
        raise Conflict(f"there is a tenant {name} already", field="name") from None


def _without_nulls(given: object) -> Any:
    """What is set, without what is only taken back."""
    if not isinstance(given, dict):
        return given
    return {key: _without_nulls(value) for key, value in given.items() if value is not None}


def merged(stored: object, given: object) -> Any:
    """A JSON merge patch (RFC 7396): a key that is not given stays, null takes it back to its default.

    Replacing all would close, together with the one key that an operator names, what others had opened.
    """
    if not isinstance(given, dict):
        return given
    found = dict(stored) if isinstance(stored, dict) else {}
    for key, value in given.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def update_tenant(
    name: str,
    *,
    title: str | None = None,
    active: bool | None = None,
    opened: object = None,
    given_limits: object = None,
    retention: object = None,
) -> Tenant:
    """Change what is given, key by key (``merged``). An inactive tenant is refused; its runs go on."""
    with transaction.atomic():
        tenant = Tenant.objects.select_for_update().filter(name=name).first()
        if tenant is None:
            raise NotFound(f"there is no tenant {name}")
        if title is not None:
            tenant.title = title
        if active is not None:
            tenant.active = active
        if opened is not None:
            policy.checked(_without_nulls(opened))
            tenant.policy = merged(tenant.policy, opened)
        if given_limits is not None:
            limits.checked(_without_nulls(given_limits))
            tenant.limits = merged(tenant.limits, given_limits)
        if retention is not None:
            retention_policy.checked(_without_nulls(retention))
            tenant.retention = merged(tenant.retention, retention)
        tenant.save(update_fields=["title", "active", "policy", "limits", "retention"])
    identity.forget()
    return tenant


def create_user(name: str, *, password: str = "", email: str = "", superuser: bool = False) -> Any:
    """A new user without a tenant. Without a password it can only use tokens, not the admin."""
    users = get_user_model()
    user = users(username=name, email=email, is_staff=superuser, is_superuser=superuser)
    if password:
        try:
            validate_password(password, user)
        except ValidationError as error:
            raise InvalidInput(" ".join(error.messages), field="password") from None
        user.set_password(password)
    else:
        user.set_unusable_password()
    try:
        user.full_clean(exclude=["password"], validate_unique=False)
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        field = {"username": "name"}.get(field, field)
        raise InvalidInput(f"{field} {name!r}: {' '.join(messages)}", field=field) from None
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        raise Conflict(f"there is a user {name} already", field="name") from None
    return user


def find_user(name: str) -> Any:
    """The user of that name, or NotFound."""
    user = get_user_model().objects.filter(username=name).first()
    if user is None:
        raise NotFound(f"there is no user {name}")
    return user


def set_user_active(name: str, active: bool) -> Any:
    """Switch a user off (its tokens and sessions end) or on again."""
    user = find_user(name)
    user.is_active = active
    user.save(update_fields=["is_active"])
    identity.forget()
    return user


def add_member(tenant_name: str, user_name: str, *, default: bool = False) -> Membership:
    """Put a user into a tenant; its first one is its default. Doing it again changes only ``default``."""
    with transaction.atomic():
        tenant = Tenant.objects.filter(name=tenant_name).first()
        if tenant is None:
            raise NotFound(f"there is no tenant {tenant_name}")
        # The user's row is the lock: of two "default" at once the second waits and then wins.
        user = get_user_model().objects.select_for_update().filter(username=user_name).first()
        if user is None:
            raise NotFound(f"there is no user {user_name}")
        mine = Membership.objects.filter(user=user)
        default = default or not mine.filter(is_default=True).exists()
        if default:
            mine.exclude(tenant=tenant).update(is_default=False)
        membership, made = Membership.objects.get_or_create(
            user=user, tenant=tenant, defaults={"is_default": default}
        )
        if default and not made and not membership.is_default:
            membership.is_default = True
            membership.save(update_fields=["is_default"])
    identity.forget()
    return membership


def remove_member(tenant_name: str, user_name: str) -> None:
    """Take a user out of a tenant. NotFound when it is not in it."""
    gone, _ = Membership.objects.filter(tenant__name=tenant_name, user__username=user_name).delete()
    if not gone:
        raise NotFound(f"user {user_name} is not in tenant {tenant_name}")
    identity.forget()


def checked_scopes(scopes: Iterable[str]) -> list[str]:
    """The scopes in their fixed order, each once; InvalidInput for an unknown one or none."""
    wanted = set(scopes)
    unknown = sorted(wanted - set(identity.SCOPES))
    if unknown or not wanted:
        what = f"there is no scope {', '.join(unknown)}" if unknown else "a token needs at least one scope"
        raise InvalidInput(f"{what}: the scopes are {', '.join(identity.SCOPES)}", field="scopes")
    return [scope for scope in identity.SCOPES if scope in wanted]


def create_token(
    user: Any, *, name: str, scopes: Iterable[str], expires_in_s: int | None = None, value: str = ""
) -> tuple[Token, str]:
    """A new token of the user and its value, which is not stored and cannot be had again.

    ``value`` is a credential made elsewhere (the bootstrap token); normally it is made here.
    """
    if not name.strip() or len(name) > 128:
        raise InvalidInput("name must have 1 to 128 characters: say what the token is for", field="name")
    if expires_in_s is not None and not 1 <= expires_in_s <= 100 * 366 * 86_400:
        raise InvalidInput(
            f"expires_in_s is {expires_in_s}: it must be from 1 second to 100 years; leave it out for no end",
            field="expires_in_s",
        )
    value = value or f"gnt_{secrets.token_urlsafe(32)}"
    token = Token.objects.create(
        user=user,
        name=name.strip(),
        digest=identity.digest(value),
        prefix=value[: min(8, len(value) // 3)],
        scopes=checked_scopes(scopes),
        expires_at=None if expires_in_s is None else timezone.now() + timedelta(seconds=expires_in_s),
    )
    identity.forget()
    return token, value


def revoke_token(token_id: int, *, user_id: int | None = None) -> Token:
    """End a token; ``user_id`` limits it to that user's own. A revoked one stays as it is."""
    tokens = Token.objects.filter(pk=token_id)
    if user_id is not None:
        tokens = tokens.filter(user_id=user_id)
    if not tokens.filter(revoked_at=None).update(revoked_at=Now()) and not tokens.exists():
        raise NotFound(f"there is no token {token_id}")
    identity.forget()
    return Token.objects.select_related("user").get(pk=token_id)


@dataclass(frozen=True)
class Bootstrap:
    """What the first start made. ``token`` and ``password`` are filled only when they were made up here."""

    tenant: str
    user: str
    token: str = ""
    password: str = ""
    #: What a person should know about a given token that was not taken.
    warning: str = ""


def bootstrap(*, given_token: str = "", given_password: str = "") -> Bootstrap:
    """Make the first tenant, its user and a token with every scope, as far as they are missing.

    Safe to run at every start and by several processes at once.
    """
    if given_token and not _USABLE.fullmatch(given_token):
        raise InvalidInput(
            f"GANTRY_BOOTSTRAP_TOKEN must have 8 to {identity.LONGEST} printable ASCII characters. "
            f"A good one: {_HOW_TO_MAKE_ONE}"
        )
    password = value = warning = ""
    if given_token and len(given_token) < 24:
        warning = f"GANTRY_BOOTSTRAP_TOKEN is short enough to be guessed. A good one: {_HOW_TO_MAKE_ONE}"
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_BOOTSTRAP_LOCK])
        tenant, _ = Tenant.objects.get_or_create(
            name=FIRST_TENANT,
            defaults={
                "title": "First tenant",
                "trusted_with_worker_account": True,
                # Who sets up a machine for itself owns its containers; with a second tenant, narrow it down.
                "policy": {
                    "exec_targets": [ALL_CONTAINERS],
                    "registries": [ANY],
                    "runtask_cm": True,
                },
            },
        )
        user = get_user_model().objects.filter(username=FIRST_USER).first()
        if user is None:
            password = given_password or secrets.token_urlsafe(18)
            user = create_user(FIRST_USER, password=password, superuser=True)
            add_member(tenant.name, FIRST_USER, default=True)
        if given_token:
            known = Token.objects.filter(digest=identity.digest(given_token)).first()
            if known is None:
                create_token(user, name="bootstrap", scopes=identity.SCOPES, value=given_token)
            elif known.revoked_at is not None:
                warning = "GANTRY_BOOTSTRAP_TOKEN names a token that was revoked: it stays revoked"
        elif not Token.objects.filter(user=user).exists():
            _, value = create_token(user, name="bootstrap", scopes=identity.SCOPES)
    return Bootstrap(tenant.name, user.get_username(), value, "" if given_password else password, warning)
