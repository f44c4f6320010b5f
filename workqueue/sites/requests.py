"""What clients send about sites: read into typed values, or refused by an error naming field and fix. Pure.

Source: contract page 40, "Sites" and "Ours, shapes". Endpoints are read in ``endpoints``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509

from workers.vocabulary.errors import InvalidInput
from workqueue import fields, paths
from workqueue.models import Site
from workqueue.sites import endpoints

NAME_MOST: Final = 128
TEXT_MOST: Final = 4096
USER_MOST: Final = 255
#: Of a certificate, a key or a chain, in characters.
PEM_MOST: Final = 65_536
LIST_MOST: Final = 100
SECRETS: Final = ("password", "key", "proxy")


@dataclass(frozen=True)
class SiteRequest:
    """A site as somebody wants it. ``pull_only`` None: as it is."""

    name: str
    description: str
    default_path: str
    visibility: str
    endpoints: list[dict[str, Any]]
    cas: list[str]
    host_keys: list[str]
    pull_only: bool | None


@dataclass(frozen=True)
class CredentialRequest:
    """All that is to be known of a user at a site; what is "" is not."""

    username: str
    password: str
    key: str
    proxy: str


@dataclass(frozen=True)
class LimitsRequest:
    """None: the installation's."""

    max_active_in: int | None
    max_active_out: int | None
    max_bytes_per_s: int | None


@dataclass(frozen=True)
class BanRequest:
    """A ban; ``until`` None: until it is lifted."""

    mode: str
    message: str
    until: datetime | None


def parse_site(body: Mapping[str, Any]) -> SiteRequest:
    """The body of POST and PUT."""
    visibility = fields.text(body, "visibility", 8) or Site.Visibility.PRIVATE.value
    if visibility not in Site.Visibility.values:
        raise InvalidInput(
            f"visibility must be one of {', '.join(Site.Visibility.values)}", field="visibility"
        )
    default_path = fields.text(body, "default_path", TEXT_MOST) or "/"
    if not default_path.startswith("/"):
        raise InvalidInput("default_path must begin with a slash", field="default_path")
    return SiteRequest(
        name=fields.required(body, "name", NAME_MOST, "give the site a name"),
        description=fields.text(body, "description", TEXT_MOST) or "",
        default_path=paths.checked(default_path, "default_path"),
        visibility=visibility,
        endpoints=endpoints.parse(body.get("endpoints")),
        cas=[_certificates(text, number) for number, text in enumerate(_pems(body))],
        host_keys=_host_keys(body),
        pull_only=fields.flag(body, "pull_only"),
    )


def parse_credentials(body: Mapping[str, Any]) -> CredentialRequest:
    """The body of a PUT of credentials: everything is replaced, what is left out is gone."""
    found = CredentialRequest(
        username=fields.text(body, "username", USER_MOST) or "",
        password=fields.text(body, "password", TEXT_MOST) or "",
        key=fields.text(body, "key", PEM_MOST) or "",
        proxy=fields.text(body, "proxy", PEM_MOST) or "",
    )
    if not (found.username or found.password or found.key or found.proxy):
        raise InvalidInput("give at least one of username, key, password and proxy")
    if found.key and "-----BEGIN" not in found.key:
        raise InvalidInput('key must be a private key in PEM or OpenSSH form ("-----BEGIN ...")', field="key")
    if found.proxy and "-----BEGIN CERTIFICATE-----" not in found.proxy:
        raise InvalidInput(
            'proxy must be a certificate with its key and chain in PEM ("-----BEGIN CERTIFICATE-----")',
            field="proxy",
        )
    return found


def parse_limits(body: Mapping[str, Any]) -> LimitsRequest:
    """The body of a PUT of limits."""
    return LimitsRequest(
        fields.integer(body, "max_active_in", 1, 10_000),
        fields.integer(body, "max_active_out", 1, 10_000),
        fields.integer(body, "max_bytes_per_s", 1, fields.BIGGEST),
    )


def parse_ban(body: Mapping[str, Any]) -> BanRequest:
    """The body of a PUT of a ban."""
    mode = fields.required(body, "mode", 8, "cancel, wait or wait_as (wait and accept)")
    if mode not in Site.Ban.values:
        raise InvalidInput("mode must be cancel, wait or wait_as (wait and accept)", field="mode")
    return BanRequest(mode, fields.text(body, "message", TEXT_MOST) or "", _until(body))


def _until(body: Mapping[str, Any]) -> datetime | None:
    given = fields.text(body, "until", 40)
    if not given:
        return None
    try:
        found = datetime.fromisoformat(given)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"until is {given!r}: it must be a time such as 2026-12-31T23:59:59Z", field="until"
        ) from None


def _pems(body: Mapping[str, Any]) -> list[str]:
    return fields.texts(body, "cas", LIST_MOST, PEM_MOST)


def _certificates(text: str, number: int) -> str:
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        where = f"cas[{number}]"
        raise InvalidInput(f"{where} is no certificate in PEM", field=where) from None
    return text


def _host_keys(body: Mapping[str, Any]) -> list[str]:
    found = fields.texts(body, "host_keys", LIST_MOST, TEXT_MOST)
    for number, line in enumerate(found):
        if len(line.split()) < 2 or "\n" in line.strip():
            where = f"host_keys[{number}]"
            raise InvalidInput(
                f'{where} must be one line as in known_hosts, or "<type> <base64>"', field=where
            )
    return [line.strip() for line in found]
