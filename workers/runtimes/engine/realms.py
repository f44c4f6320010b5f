"""Asked before a pull: to which hosts does a registry send whoever pulls from it?

The Docker Engine asks a registry's /v2/, follows its redirects, fetches a token from the realm that a Bearer
challenge names, and shows that to the registry: a realm inside would be read aloud. So this node asks first,
through the guard of addresses and without credentials, and lets the engine go only where an operator opened
the way. What this cannot keep: docs/security.md. Sources: token authentication of the Docker Registry v2; RFC
6750, section 3.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterable
from typing import Final
from urllib.parse import urljoin

import structlog

from workers.addresses import AddressFailed, Deadline, open_url, parse
from workers.addresses.http import MAX_REDIRECTS
from workers.runtimes.engine.pulling import Cause, Failure
from workers.vocabulary.errors import AddressRefused, InvalidInput, without_user_info
from workers.vocabulary.references import DOCKER_HUB, Opening

log = structlog.get_logger(__name__)

#: Where the engine finds Docker Hub.
_HUB: Final = "registry-1.docker.io"
#: Every realm of a challenge, also inside of another value: the engine may read it otherwise.
_REALM: Final = re.compile(r'realm\s*=\s*(?:"([^"]*)"|([^\s,"]*))', re.IGNORECASE)


def objection(opening: Opening, deadline: Deadline) -> Failure | None:
    """Why the engine must not ask this registry, or cannot; None when it may. Raises what the deadline's
    ``tick`` raises."""
    name = _HUB if opening.registry == DOCKER_HUB else opening.registry
    url = f"{'http' if opening.plain else 'https'}://{name}/v2/"
    try:
        known = _places(opening, name)
        for _ in range(MAX_REDIRECTS + 1):
            # Whoever answers is shown nothing and trusted with nothing: certificates are the engine's matter.
            with open_url(url, purpose="registry", deadline=deadline, authority=None) as answer:
                status, headers = answer.status, answer.headers
            location = headers.get("Location") if 300 <= status < 400 else None
            if location is None:
                return _strange(opening, known, realms(headers.get_all("WWW-Authenticate") or ()))
            with contextlib.suppress(ValueError):  # what is no address is strange
                location = urljoin(url, location.strip())
            if strange := _strange(opening, known, [location]):
                return strange
            url = location
    except (AddressRefused, InvalidInput) as error:
        log.warning("registry.refused", registry=opening.registry, why=error.message)
        return Failure(Cause.CLOSED, "its registry has an address that is not open")
    except AddressFailed as error:
        log.warning("registry.no_answer", registry=opening.registry, why=error.message)
        if isinstance(error.__cause__, ssl.SSLError):
            return Failure(Cause.BROKEN, "its registry does not speak TLS, and is not opened without it")
        return Failure.of(Cause.UNREACHABLE)
    return Failure(Cause.BROKEN, "its registry redirects without end")


def realms(challenges: Iterable[str]) -> list[str]:
    """The addresses that Bearer challenges name, values of WWW-Authenticate; a realm of Basic is none."""
    return [
        found[1] or found[2] or ""
        for challenge in challenges
        if "bearer" in challenge.lower()
        for found in _REALM.finditer(challenge)
    ]


def _places(opening: Opening, name: str) -> set[tuple[str, str]]:
    """(scheme, host with port) of the registry itself and of what was opened with it. Raises InvalidInput."""
    schemes = ("https", "http") if opening.plain else ("https",)
    return {
        (scheme, parse(f"{scheme}://{place}/").authority)
        for scheme in schemes
        for place in (name, *opening.tokens)
    }


def _strange(opening: Opening, known: set[tuple[str, str]], named: Iterable[str]) -> Failure | None:
    for url in named:
        try:
            target = parse(url)
        except InvalidInput:
            target = None
        if target is None or (target.scheme, target.authority) not in known:
            log.warning(
                "registry.names_another", registry=opening.registry, named=without_user_info(url)[:300]
            )
            return Failure(Cause.CLOSED, "its registry names another host, which is not opened with it")
    return None
