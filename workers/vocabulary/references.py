"""Names of images: registry, repository, tag, digest; patterns that allow them; registries, how they are
opened and what they are shown.

Pure: no Django, no database, no engine. A name is read as the Docker Engine reads it, so that what a policy
has checked is what is pulled: "busybox" is docker.io/library/busybox:latest, a first part with a dot, a colon
or "localhost" is a registry. What the engine would take for an image's id is refused: ids pass by every list.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

DOCKER_HUB: Final = "docker.io"
#: Other names of the same registry.
_HUB_ALIASES: Final = frozenset({"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
#: Longest name that the engine takes, registry and repository together.
LONGEST: Final = 255

#: A user name and a password in the place of a name, by mistake; not the name before a digest.
_USER_INFO: Final = re.compile(r"\A.*@(?!sha[0-9]+:)", re.DOTALL)
_LABEL: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
#: Without [IPv6]: the engine (20.10) calls such a name malformed.
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*(?::([0-9]{{1,5}}))?")
_PART: Final = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_ID: Final = re.compile(r"[0-9a-f]{64}")
#: What may stand in a pattern beside the characters of names.
_PATTERN: Final = re.compile(r"[A-Za-z0-9_.:/*@\[\]-]+")


class BadReference(ValueError):
    """This is not the name of an image; the text says why."""


@dataclass(frozen=True)
class Reference:
    """An image's name in full. ``tag`` or ``digest`` may be "", not both; a digest overrides a tag."""

    registry: str
    repository: str
    tag: str
    digest: str
    #: The registry as it was written: the engine's store tells "R.example" from "r.example".
    spelled: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """Registry and repository: the engine never takes this for an id."""
        return f"{self.spelled or self.registry}/{self.repository}"

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


@dataclass(frozen=True)
class Credentials:
    """What a registry is shown. ``holder`` says whose they are, without a secret: tenant, registry, user."""

    holder: str
    username: str
    password: str = field(repr=False)

    def header(self, registry: str) -> str:
        """As the engine expects them in X-Registry-Auth."""
        words = {"username": self.username, "password": self.password, "serveraddress": registry}
        return base64.urlsafe_b64encode(json.dumps(words).encode()).decode()


#: In the place of a registry, or of its token service: every one.
ANY: Final = "any"
_PLAIN: Final = "http://"
#: How an operator opens registries, by example.
OPENINGS: Final = (
    'e.g. "ghcr.io", "r.example=tokens.example" (its token service is another host), "r.example=any" '
    '(or wherever), "http://10.1.2.3:5000" (no TLS), or "any"'
)


@dataclass(frozen=True)
class Opening:
    """How an operator opened a registry: an entry such as those of OPENINGS, or several."""

    registry: str
    #: Hosts, with a port unless it is 443, that may give tokens for it, beside its own.
    tokens: frozenset[str] = frozenset()
    plain: bool = False

    @property
    def unasked(self) -> bool:
        return ANY in self.tokens


@dataclass(frozen=True)
class Way:
    """How a run's image is pulled: what is shown to its registry, and what that one may name."""

    credentials: Credentials | None = None
    #: None: whatever it names is followed.
    opening: Opening | None = None


@lru_cache(maxsize=4096)
def opening(text: str) -> Opening:
    """Read an operator's entry. Raises BadReference."""
    entry = text.strip()
    if entry.lower() == ANY:
        return Opening(ANY, frozenset({ANY}))
    plain = entry.lower().startswith(_PLAIN)
    name, equals, token = entry[len(_PLAIN) if plain else 0 :].partition("=")
    registry = host(name)
    if not equals:
        return Opening(registry, plain=plain)
    return Opening(registry, frozenset({ANY if token.strip().lower() == ANY else host(token)}), plain)


def opened(entries: Iterable[str], registry: str) -> Opening | None:
    """What a list of entries says of a registry; None when none opens it. Raises BadReference."""
    found = [item for item in map(opening, entries) if item.registry in (registry, ANY)]
    if not found:
        return None
    tokens = frozenset[str]().union(*(item.tokens for item in found))
    return Opening(registry, tokens, any(item.plain for item in found))


def host(text: str) -> str:
    """A registry's name as it is compared: lower case, one name for Docker Hub. Raises BadReference."""
    found = text.strip().lower()
    matched = _HOST.fullmatch(found)
    if not matched or len(found) > LONGEST or int(matched[1] or 1) not in range(1, 65536):
        raise BadReference(f"{_show(text)} is no registry: write host or host:port, without https://")
    return DOCKER_HUB if found in _HUB_ALIASES else found


@lru_cache(maxsize=4096)
def parse(text: str) -> Reference:
    """Read an image's name. Raises BadReference."""
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise BadReference(f"{_show(text)}: after @ a digest is due, sha256: and 64 digits (0-9, a-f)")
    tag = ""
    head, colon, last = rest.rpartition(":")
    if colon and "/" not in last:
        rest, tag = head, last
        if not _TAG.fullmatch(tag):
            raise BadReference(f"{_show(text)}: the tag {_show(tag)} is not usable")
    registry, repository = _split(rest)
    if not _REPOSITORY.fullmatch(repository):
        hint = ": a repository is written in lower case" if repository.lower() != repository else ""
        raise BadReference(f"{_show(text)} is not the name of an image{hint}")
    if _ID.fullmatch(rest) or rest in ("sha256", "sha512"):
        raise BadReference(f"{_show(text)} is an image's id: name it by repository and tag or digest")
    found = Reference(
        host(registry),
        _official(registry, repository),
        "" if at else tag or "latest",
        digest,
        registry if host(registry) == registry.lower() else "",
    )
    if len(found.name) > LONGEST:
        raise BadReference(f"{_show(text)} is too long: at most {LONGEST} characters")
    return found


def _split(rest: str) -> tuple[str, str]:
    first, slash, others = rest.partition("/")
    if slash and (any(sign in first for sign in ".:*") or first == "localhost"):
        return first, others
    return DOCKER_HUB, rest


def _official(registry: str, repository: str) -> str:
    """Docker Hub's own images have a folder that nobody writes."""
    if host(registry) == DOCKER_HUB and "/" not in repository:
        return f"library/{repository}"
    return repository


@dataclass(frozen=True)
class Pattern:
    """Which images an operator allows: "registry.example/team/*", "busybox", "postgres:16*", "*".

    ``*`` stands for any characters, in the registry's part without "/". Without a tag every tag and digest
    is meant; with one, only that: an image named by digest does not match it, since its tag counts for
    nothing. "*" alone is every image.
    """

    text: str
    registry: re.Pattern[str]
    repository: re.Pattern[str]
    tag: re.Pattern[str] | None
    digest: str

    def matches(self, image: Reference) -> bool:
        if not (self.registry.fullmatch(image.registry) and self.repository.fullmatch(image.repository)):
            return False
        if self.digest:
            return image.digest == self.digest
        return self.tag is None or (not image.digest and bool(self.tag.fullmatch(image.tag)))


@lru_cache(maxsize=4096)
def pattern(text: str) -> Pattern:
    """Read a pattern. Raises BadReference."""
    if not _PATTERN.fullmatch(text) or len(text) > LONGEST:
        raise BadReference(
            f'{_show(text)} is no pattern for images: write e.g. "registry.example/team/*" or "busybox:1.*"'
        )
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise BadReference(f"{_show(text)}: after @ a whole digest is due")
    tag = None
    head, colon, last = rest.rpartition(":")
    if colon and "/" not in last:
        rest, tag = head, last
    if rest == "*":
        registry, repository = "*", "*"
    else:
        registry, repository = _split(rest)
        registry = registry.lower()
        registry = DOCKER_HUB if registry in _HUB_ALIASES else registry
        if registry == DOCKER_HUB and "/" not in repository and repository != "*":
            repository = f"library/{repository}"
    if not registry or not repository or tag == "" or "//" in f"{registry}/{repository}/":
        raise BadReference(f"{_show(text)} is no pattern for images: a part of it is empty")
    return Pattern(
        text, _glob(registry, r"[^/]*"), _glob(repository, ".*"), _glob(tag, ".*") if tag else None, digest
    )


def allows(patterns: Iterable[str], image: Reference) -> bool:
    """May this image be used under these patterns?"""
    return any(pattern(text).matches(image) for text in patterns)


def _glob(text: str, star: str) -> re.Pattern[str]:
    return re.compile(star.join(re.escape(piece) for piece in re.split(r"\*+", text)))


def _show(text: str) -> str:
    """Quoted, but for what stands before an @ that begins no digest: a name and a password, by mistake."""
    shown = repr(_USER_INFO.sub("***@", text))
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
