"""What the views of /api/v1 share: who asks, how an answer is written, pages of a list, one thing per key.

Must not import services.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlencode

from django.http import HttpResponse
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.views import APIView

from workers.tenants import idempotency
from workers.tenants.identity import Identity
from workers.vocabulary.errors import InvalidInput

T = TypeVar("T")

PAGE_DEFAULT: Final = 100
PAGE_MOST: Final = 1000


class ApiView(APIView):
    """Base of the views below /api/v1."""

    def who(self) -> Identity:
        """Whom this request acts for; authentication has set it."""
        return cast(Identity, self.request.auth)

    def tenant_id(self) -> int | None:
        """The tenant whose runs are meant: the caller's, or None (all) for an operator's ?all_tenants=1."""
        if not flag(self.request, "all_tenants"):
            return self.who().tenant_id
        if not self.who().operates:
            raise PermissionDenied("all_tenants=1 needs the scope operate")
        return None

    def viewer(self) -> int | None:
        """Whose private runs are shown: the caller's own; None = everybody's, for operators."""
        who = self.who()
        return None if who.operates else who.user_id or 0


def answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """A JSON response."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return HttpResponse(text, content_type="application/json", status=status, headers=dict(headers or {}))


def created(
    request: Request,
    identity: Identity,
    create: Callable[[], tuple[int, dict[str, Any]]],
    *,
    secret: bool = False,
) -> tuple[int, dict[str, Any]]:
    """What ``create`` answers, once per Idempotency-Key if the request has one.

    ``secret``: it shows a value that is shown once; then the repetition is a 409 with the thing's id.
    """
    status, body, _ = idempotency.for_request(
        request._request, identity.tenant_id, identity.user_id, create, secret=secret
    )
    return status, body


def stamp(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with Z, to the microsecond."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def flag(request: Request, name: str) -> bool:
    """A parameter that is 1 or 0, true or false."""
    text = request.query_params.get(name, "").lower()
    if text not in ("", "0", "1", "true", "false"):
        raise InvalidInput(f"{name} is {text[:40]!r}: it must be 1 or 0", field=name)
    return text in ("1", "true")


def known_parameters(request: Request, names: Sequence[str]) -> None:
    """Refuse a misspelt filter: ignoring it would answer everything."""
    unknown = sorted(set(request.query_params) - set(names))
    if unknown:
        raise InvalidInput(
            f"there is no parameter {unknown[0][:60]!r} here: there are {', '.join(names)}",
            field=unknown[0][:60],
        )


@dataclass(frozen=True)
class Page:
    """Which part of a list is asked for. ``cursor`` is what the last Link said; "" = from the start."""

    limit: int
    cursor: str

    @staticmethod
    def of(request: Request) -> Page:
        """``limit`` (100, at most 1000) and ``cursor`` of a request."""
        text = request.query_params.get("limit", str(PAGE_DEFAULT))
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= PAGE_MOST):
            raise InvalidInput(f"limit is {text[:40]!r}: it must be 1 to {PAGE_MOST}", field="limit")
        return Page(int(text), request.query_params.get("cursor", ""))

    def number(self) -> int | None:
        """The cursor as an id."""
        if not self.cursor:
            return None
        if not (self.cursor.isascii() and self.cursor.isdigit() and len(self.cursor) <= 18):
            raise InvalidInput("cursor is not one that a Link of this list gave", field="cursor")
        return int(self.cursor)

    def answer(
        self,
        request: Request,
        rows: Sequence[T],
        render: Callable[[T], object],
        cursor_of: Callable[[T], object],
    ) -> HttpResponse:
        """A bare array of at most ``limit``; ``rows`` has one more when there is a next page."""
        shown = rows[: self.limit]
        headers = {}
        if len(rows) > self.limit:
            again = {**request.query_params.dict(), "cursor": str(cursor_of(shown[-1]))}
            url = request.build_absolute_uri(f"{request._request.path}?{urlencode(again)}")
            headers["Link"] = f'<{url}>; rel="next"'
        return answer([render(row) for row in shown], headers=headers)


def moment(request: Request, name: str) -> datetime | None:
    """A parameter that is a date or a date with time (RFC 3339); without a zone it is UTC."""
    text = request.query_params.get(name)
    if text is None:
        return None
    # "+" in a query is a blank: an offset that a client forgot to escape.
    tidy = text.strip().replace(" ", "+") if "T" in text else text.strip()
    try:
        found = datetime.fromisoformat(tidy)
    except ValueError:
        raise InvalidInput(
            f"{name} is {text[:40]!r}: it must be a time such as 2026-01-31T23:59:59Z", field=name
        ) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    try:
        return found.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(f"{name} is {text[:40]!r}: it is out of range", field=name) from None


def root_of(request: Request) -> str:
    """Scheme and host that the client used."""
    return f"{request.scheme}://{request.get_host()}"


def _endless(value: object) -> bool:
    """Is it, or does it hold, an infinite number? As text it would be "inf"."""
    if isinstance(value, Mapping | list):
        return any(map(_endless, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, float) and not math.isfinite(value)


def checked(serializer: Any) -> dict[str, Any]:
    """What the body says, checked; null is the same as absent, a number that is none (1e400) refused."""
    given = serializer.initial_data
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if _endless(value):
            raise InvalidInput(f"{name} has a number in it that is too large", field=str(name))
    serializer.is_valid(raise_exception=True)
    return {name: value for name, value in serializer.validated_data.items() if value is not None}
