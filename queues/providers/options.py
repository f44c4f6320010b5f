"""What a policy's options may be, by provider: checked when they are written, and again when they are used.

Must not import the providers: the web process checks options, and one of them is 87 MiB of client.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from uuid import UUID

from workers.addresses import parse
from workers.vocabulary.errors import InvalidInput

_LONGEST: Final = 255
_LONGEST_SECRET: Final = 16 * 1024
_LONGEST_CA: Final = 256 * 1024
_MOST_NAMES: Final = 1000


@dataclass(frozen=True)
class Placement:
    """Where Keystone is, who asks, and what aggregates are called. ``secret``: the user's password."""

    auth_url: str
    username: str
    user_domain: str
    project: str
    project_domain: str
    secret: str = field(repr=False)
    region: str = ""
    placement_url: str = ""
    ca: str = ""
    aggregates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kubernetes:
    """Where the API server is. ``secret``: the bearer token of a service account."""

    server: str
    secret: str = field(repr=False)
    ca: str = ""
    aggregate_label: str = ""
    tolerate: tuple[str, ...] = ()


def check(provider: str, options: Mapping[str, Any]) -> None:
    """InvalidInput names the option that cannot work; ``secret`` is one of them."""
    if provider == "placement":
        placement(options)
    elif provider == "kubernetes":
        kubernetes(options)
    elif provider == "pools":
        _known(options, ())
    else:
        raise InvalidInput(
            f'provider: "{provider[:40]}" is none: pools, placement or kubernetes', field="provider"
        )


def placement(options: Mapping[str, Any]) -> Placement:
    """Options of provider ``placement``."""
    _known(options, Placement.__dataclass_fields__)
    named = options.get("aggregates") or {}
    if not isinstance(named, Mapping) or len(named) > _MOST_NAMES:
        _wrong("aggregates", f"must be an object of at most {_MOST_NAMES} names, by an aggregate's uuid")
    aggregates = {}
    for uuid in named:
        try:
            key = str(UUID(uuid))
        except ValueError:
            _wrong("aggregates", f'"{uuid[:60]}" is no uuid')
        aggregates[key] = _text(named, uuid, f"aggregates.{key}")
    return Placement(
        auth_url=_url(options, "auth_url"),
        **{name: _text(options, name) for name in ("username", "user_domain", "project", "project_domain")},
        secret=_secret(options, "the user's password"),
        region=_text(options, "region", needed=False),
        placement_url=_url(options, "placement_url", needed=False),
        ca=_ca(options),
        aggregates=aggregates,
    )


def kubernetes(options: Mapping[str, Any]) -> Kubernetes:
    """Options of provider ``kubernetes``."""
    _known(options, Kubernetes.__dataclass_fields__)
    tolerate = options.get("tolerate") or []
    if (
        not isinstance(tolerate, list)
        or len(tolerate) > _MOST_NAMES
        or not all(isinstance(key, str) and 0 < len(key) <= _LONGEST for key in tolerate)
    ):
        _wrong("tolerate", "must be a list of keys of taints that pods of this type tolerate")
    secret = _secret(options, "the token of a service account")
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        _wrong("secret", "is no bearer token: it has blanks or characters that no header may have")
    return Kubernetes(
        server=_url(options, "server"),
        secret=secret,
        ca=_ca(options),
        aggregate_label=_text(options, "aggregate_label", needed=False),
        tolerate=tuple(tolerate),
    )


def _wrong(name: str, what: str) -> NoReturn:
    raise InvalidInput(f"options.{name}: {what}", field=f"options.{name}")


def _known(options: Mapping[str, Any], names: Any) -> None:
    for name in options:
        if name not in names:
            _wrong(str(name)[:60], f"is no option; there are {', '.join(sorted(names)) or 'none'}")


def _text(options: Mapping[str, Any], name: str, shown: str = "", *, needed: bool = True) -> str:
    value = options.get(name)
    if value in (None, "") and not needed:
        return ""
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST or not value.isprintable():
        _wrong(shown or name, f"must be text of 1 to {_LONGEST} characters")
    return value


def _url(options: Mapping[str, Any], name: str, *, needed: bool = True) -> str:
    value = options.get(name)
    if value in (None, "") and not needed:
        return ""
    if not isinstance(value, str) or not value:
        _wrong(name, "must be a URL that begins with https:// (or http://)")
    parse(value, field=f"options.{name}")
    if "?" in value or "#" in value:
        _wrong(name, "leave out what stands after ? or #")
    return value.rstrip("/")


def _secret(options: Mapping[str, Any], what: str) -> str:
    value = options.get("secret")
    if not isinstance(value, str) or not value or len(value) > _LONGEST_SECRET:
        _wrong("secret", f"must be {what}")
    return value


def _ca(options: Mapping[str, Any]) -> str:
    value = options.get("ca")
    if value in (None, ""):
        return ""
    if not isinstance(value, str) or len(value) > _LONGEST_CA:
        _wrong("ca", "must be certificates in PEM")
    try:
        ssl.create_default_context(cadata=value)
    except (ssl.SSLError, ValueError):
        _wrong("ca", "must be certificates in PEM: from -----BEGIN CERTIFICATE----- to the END line")
    return value
