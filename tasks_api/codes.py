"""The error numbers of the tasks family and the errors that carry them.

Pure: imports nothing but the engine's error classes, no database and no HTTP. ``config.http.errors`` gives
the classes their HTTP status by their engine base class; ``NUMBERS`` gives them the family's own number.
Source: contract page 10, "Errors"; the numbers are those of the original Juice.
"""

from __future__ import annotations

from typing import Final

from workers.vocabulary.errors import InvalidInput, NotFound

MISSING: Final = -2127552257
MALFORMED: Final = -2127552007
NOT_ALLOWED: Final = -2127552256
UNSUPPORTED: Final = -2127552017
BAD_IDS: Final = -2127552019
NO_SUCH_TASK: Final = -2127560608
TOKEN_MISSING: Final = -2127552013
TOKEN_INVALID: Final = -2127552014
TOKEN_EXPIRED: Final = -2127552015
FORBIDDEN: Final = -2127560624
REQUEST_REFUSED: Final = -2127560592
INTERNAL: Final = -2127560704
DATABASE: Final = -2127552011


class Missing(InvalidInput):
    """A required thing is absent, null or blank."""

    code = "missing"


class Malformed(InvalidInput):
    """Not JSON, or a value of the wrong type (text where an object is due, ...)."""

    code = "malformed"


class NotAllowed(InvalidInput):
    """A value of the right type that is outside what the field takes, or both ways of running at once."""

    code = "not_allowed"


class Refused(InvalidInput):
    """Understood, but this tenant's policy does not open it. 400 in this family, not 403."""

    code = "refused"


class Unsupported(InvalidInput):
    """Something of the original that cannot exist here (Mesos' own containerizer)."""

    code = "unsupported"


class BadIds(InvalidInput):
    """taskId or taskIds is not made of 64-bit integers."""

    code = "bad_ids"


class NoSuchTask(NotFound):
    """No task of this tenant has the id: 404 on the task's own paths."""

    code = "no_such_task"


class NoSuchRecord(InvalidInput):
    """No task of this tenant has the id: kill answers 400, as the original does."""

    code = "no_such_record"


#: Error code (a class attribute of an engine or family error) -> number.
NUMBERS: Final[dict[str, int]] = {
    Missing.code: MISSING,
    "required": MISSING,
    Malformed.code: MALFORMED,
    NotAllowed.code: NOT_ALLOWED,
    Refused.code: NOT_ALLOWED,
    "refused_by_policy": NOT_ALLOWED,
    Unsupported.code: UNSUPPORTED,
    BadIds.code: BAD_IDS,
    NoSuchTask.code: NO_SUCH_TASK,
    NoSuchRecord.code: NO_SUCH_TASK,
    "token_missing": TOKEN_MISSING,
    "token_invalid": TOKEN_INVALID,
    "token_expired": TOKEN_EXPIRED,
    "database": DATABASE,
}

#: HTTP status -> number, for every error that has no number of its own.
NUMBERS_BY_STATUS: Final[dict[int, int]] = {400: NOT_ALLOWED, 401: TOKEN_INVALID, 403: FORBIDDEN}


def number(status: int, code: str) -> int:
    """The family's error number for an HTTP ``status`` and an error ``code``; always negative."""
    if code in NUMBERS:
        return NUMBERS[code]
    if status >= 500:
        return INTERNAL
    return NUMBERS_BY_STATUS.get(status, REQUEST_REFUSED)
