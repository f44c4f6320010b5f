"""X-Callback-Url on a creating request, for every family: read and checked, without any look-up.

Must not import services.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from workers import addresses
from workers.vocabulary.errors import InvalidInput

LONGEST: Final = 2048


class Asked(Protocol):
    """What is read of a request: Django's and DRF's both have it."""

    @property
    def META(self) -> dict[str, Any]: ...  # noqa: N802  Django's name


def callback_header(request: Asked) -> str:
    """The URL to call back, "" when none is given. InvalidInput when it is not http or https.

    Where it leads is checked when it is used: a denied address is accepted here and refused at each delivery.
    """
    given = str(request.META.get("HTTP_X_CALLBACK_URL", "")).strip()
    return checked(given, "X-Callback-Url") if given else ""


def checked(url: str, field: str) -> str:
    """``url``, or InvalidInput naming ``field``. Credentials are refused: the URL is shown and kept."""
    if len(url) > LONGEST:
        raise InvalidInput(f"{field} has {len(url)} characters: at most {LONGEST} are allowed", field=field)
    if addresses.parse(url, field=field, credentials=True).authorization is not None:
        raise InvalidInput(
            f"{field} has a user name or password in it: leave them out, every callback is signed "
            "(webhook-signature), and that is what the receiver should check",
            field=field,
        )
    return url
