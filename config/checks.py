"""What is wrong or weak in the settings, as Django's system checks; each says how to mend it.

``manage.py check`` prints them, the API logs the warnings at its start. Must not import views or models.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from cryptography.fernet import Fernet
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004  Django's name
from django.core.exceptions import ImproperlyConfigured

from config.http import peers
from jobs.runtask.catalogue.folder import catalogue
from workers.addresses.guard import PURPOSES, setting_of
from workers.vocabulary.references import OPENINGS, BadReference, opening

log = structlog.get_logger(__name__)

_NEW_KEY: Final = 'python3 -c "import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'


def secret_keys(**_: Any) -> list[CheckMessage]:
    """GANTRY_SECRET_KEYS: present, and each one a Fernet key."""
    keys = settings.GANTRY_SECRET_KEYS
    if not keys:
        return [
            Warning(
                "GANTRY_SECRET_KEYS is not set: no secret can be stored, and no stored one can be read.",
                hint=f"Set it to a key, the same on every machine of the installation. A new key: {_NEW_KEY}",
                id="gantry.W001",
            )
        ]
    found: list[CheckMessage] = []
    for number, key in enumerate(keys, start=1):
        try:
            Fernet(key.strip())
        except ValueError:
            found.append(
                Error(
                    f"Key {number} of GANTRY_SECRET_KEYS is no key: it must be 32 bytes in url-safe base64.",
                    hint=f"Keys are separated by commas, the newest first. A new key: {_NEW_KEY}",
                    id="gantry.E001",
                )
            )
    return found


def _reader(name: str) -> Callable[[Sequence[str]], object]:
    return lambda entries: peers.networks(tuple(entries), name)


def network_lists(**_: Any) -> list[CheckMessage]:
    """The settings that hold networks: readable, and a warning for those that need no credentials."""
    found: list[CheckMessage] = []
    readers: dict[str, Callable[[Sequence[str]], object]] = {
        "GANTRY_TRUSTED_NETWORKS": lambda entries: peers.trusted_networks(tuple(entries)),
        "GANTRY_TRUSTED_PROXIES": lambda entries: peers.networks(tuple(entries), "GANTRY_TRUSTED_PROXIES"),
        **{name: _reader(name) for name in map(setting_of, PURPOSES)},
    }
    for name, read in readers.items():
        try:
            read(getattr(settings, name))
        except peers.BadNetwork as error:
            found.append(Error(str(error), id="gantry.E002"))
    if settings.GANTRY_TRUSTED_NETWORKS and not found:
        found.append(
            Warning(
                "Every peer in GANTRY_TRUSTED_NETWORKS may read and submit without any credentials.",
                hint="Empty it unless clients that cannot send a token stand there behind a gateway. "
                f"Now: {', '.join(settings.GANTRY_TRUSTED_NETWORKS)}",
                id="gantry.W002",
            )
        )
    return found


def command_processes(**_: Any) -> list[CheckMessage]:
    """GANTRY_COMMAND_PROCESSES: the launcher refuses every command with fewer than none."""
    if settings.GANTRY_COMMAND_PROCESSES >= 2:
        return []
    return [
        Error(
            f"GANTRY_COMMAND_PROCESSES is {settings.GANTRY_COMMAND_PROCESSES}: no command could start.",
            hint="Set it to 2 or more, or remove it: 4096 is its default.",
            id="gantry.E003",
        )
    ]


def opened_registries(**_: Any) -> list[CheckMessage]:
    """GANTRY_REGISTRIES: each entry readable."""
    found: list[CheckMessage] = []
    for entry in settings.GANTRY_REGISTRIES:
        try:
            opening(entry)
        except BadReference as error:
            found.append(
                Error(
                    f"GANTRY_REGISTRIES: {error}.",
                    hint=f"Name registries, separated by commas, {OPENINGS}.",
                    id="gantry.E006",
                )
            )
    return found


def job_definitions(**_: Any) -> list[CheckMessage]:
    """What runtask offers: definitions that cannot be used are named, the others work."""
    found: list[CheckMessage] = []
    there = catalogue()
    if there.trouble:
        found.append(
            Warning(
                f"The job definitions of runtask cannot be read: {there.trouble}.",
                hint="Set GANTRY_RUNTASK_DEFINITIONS to a folder, with a folder for each definition in it.",
                id="gantry.W006",
            )
        )
    for name, problem in sorted(there.broken.items()):
        found.append(
            Warning(
                f"The job definition {name} cannot be used: {problem}.",
                hint=f"Mend it in {settings.GANTRY_RUNTASK_DEFINITIONS}, or remove its folder.",
                id="gantry.W007",
            )
        )
    return found


def runtask_settings(**_: Any) -> list[CheckMessage]:
    """What a job of runtask gets: numbers with which every job would fail are refused."""
    found: list[CheckMessage] = []
    for name, least in (("CPUS", 0.1), ("MEM_MB", 16), ("TIMEOUT_S", 1), ("LOG_MB", 1)):
        value = getattr(settings, f"GANTRY_RUNTASK_{name}")
        if value < least:
            found.append(
                Error(
                    f"GANTRY_RUNTASK_{name} is {value:g}: no job could run with it.",
                    hint=f"Set it to {least:g} or more, or remove it.",
                    id="gantry.E004",
                )
            )
    holder = settings.GANTRY_RUNTASK_CONTAINER
    if not holder or "/" in holder or len(holder.encode()) > 256:
        found.append(
            Error(
                f"GANTRY_RUNTASK_CONTAINER is {holder!r}, which cannot be the name of a container.",
                hint="Swift's containers have names of 1 to 256 bytes without /.",
                id="gantry.E005",
            )
        )
    return found


def weak_settings(**_: Any) -> list[CheckMessage]:
    """What is fine on a developer's machine and not for others."""
    found: list[CheckMessage] = []
    if not os.environ.get("DJANGO_SECRET_KEY"):
        found.append(
            Warning(
                "DJANGO_SECRET_KEY is not set: each process makes its own, so that sessions and signed URLs "
                "of one API process are refused by the next.",
                hint="Set it to 50 or more random characters, the same for every API process.",
                id="gantry.W003",
            )
        )
    if "*" in settings.ALLOWED_HOSTS:
        found.append(
            Warning(
                "GANTRY_ALLOWED_HOSTS allows every Host: other sites can reach the service by their names.",
                hint="Name the hosts under which clients call this service, separated by commas.",
                id="gantry.W004",
            )
        )
    if settings.TOKEN_CACHE_S > 60:
        found.append(
            Warning(
                f"GANTRY_TOKEN_CACHE_S is {settings.TOKEN_CACHE_S:g} s: so long may a revoked token work.",
                hint="Leave it at 5 unless the database cannot bear one look-up per token in that time.",
                id="gantry.W005",
            )
        )
    return found


def registered() -> None:
    """Register them; called when Django starts."""
    register(secret_keys, Tags.security)
    register(network_lists, Tags.security)
    register(command_processes, Tags.security)
    register(opened_registries, Tags.security)
    register(job_definitions)
    register(runtask_settings)
    register(weak_settings, Tags.security, deploy=True)


def all_settings() -> list[CheckMessage]:
    """Everything that these checks find now."""
    return [
        *secret_keys(),
        *network_lists(),
        *command_processes(),
        *opened_registries(),
        *runtask_settings(),
        *job_definitions(),
        *weak_settings(),
    ]


def warn_at_start() -> None:
    """Log what the checks find, and stop at an error: an API server runs no management command."""
    for message in all_settings():
        if message.is_serious():
            raise ImproperlyConfigured(f"{message.msg} {message.hint or ''}".strip())
        log.warning("settings", id=message.id, problem=message.msg, remedy=message.hint)
