"""Errors of the engine, each with a stable code. They know no HTTP: ``config.http.errors`` gives a status.

``field`` names the input that is wrong, where there is one. The text says what is wrong and what to do.
"""

from __future__ import annotations

import re
from typing import Final

#: What stands between slashes, and what stands behind "registries/": each text is read once, however long.
_PART: Final = re.compile(r"[^/\s]+")
_REGISTRY: Final = re.compile(r"(?<=registries/)[^/]+")
#: One that begins no digest.
_AT: Final = re.compile(r"@(?!sha[0-9]+:)")


def without_user_info(text: str) -> str:
    """A text as messages, logs and the audit log quote it: what may be a password before an @ is ``***``.

    That is user:password@ in what names a place, and whatever stands before the @ of a registry's name.
    """
    if "@" not in text:
        return text
    return _PART.sub(_without_password, _REGISTRY.sub(_without_all, text))


def _behind_the_last(text: str) -> int:
    """Where what follows the last such @ begins; 0: there is none."""
    return max((found.end() for found in _AT.finditer(text)), default=0)


def _without_all(part: re.Match[str]) -> str:
    end = _behind_the_last(part[0])
    return f"***@{part[0][end:]}" if end else part[0]


def _without_password(part: re.Match[str]) -> str:
    text, end = part[0], _behind_the_last(part[0])
    colon = text.find(":", 0, end)
    if colon < 0:
        return text
    return f"{text[: text.rfind('@', 0, colon) + 1]}***@{text[end:]}"


class EngineError(Exception):
    """Base of all errors that a caller of the engine may see."""

    code = "engine_error"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidInput(EngineError):
    """The request is understood and refused because a value is wrong."""

    code = "invalid"


class RefusedByPolicy(EngineError):
    """The tenant's policy does not allow it; an operator may open it."""

    code = "refused_by_policy"


class Forbidden(EngineError):
    """Known and understood, but not allowed: an operator may open it."""

    code = "forbidden"


class NotFound(EngineError):
    """No such thing for this tenant (also: it belongs to another tenant)."""

    code = "not_found"


class Conflict(EngineError):
    """The thing is not in a state in which this can be done."""

    code = "conflict"


class IdempotencyConflict(Conflict):
    """The Idempotency-Key was used before with another body."""

    code = "idempotency_key_reused"


class ShownOnce(Conflict):
    """The Idempotency-Key made it before, and its value was shown then; the text has its id."""

    code = "shown_once"


class Unavailable(EngineError):
    """Cannot be done now; try again later. ``retry_after`` is in seconds."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LimitReached(EngineError):
    """The tenant has as much of something as it may; try again later. ``retry_after`` is in seconds."""

    code = "limit_reached"

    def __init__(
        self, message: str, *, name: str, limit: int, remaining: int = 0, retry_after: int = 5
    ) -> None:
        super().__init__(message)
        self.name = name
        self.limit = limit
        self.remaining = remaining
        self.retry_after = retry_after


class AddressRefused(EngineError):
    """An address named by a client is on the deny list."""

    code = "address_refused"


class Upstream(EngineError):
    """Another server, which the request needs, said no or did not answer."""

    code = "upstream"


class SecretUnreadable(EngineError):
    """A secret cannot be decrypted with any configured key."""

    code = "secret_unreadable"
