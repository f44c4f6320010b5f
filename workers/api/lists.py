"""A family's documented list: streamed whole when no limit is given, else pages (``limit``, ``cursor``).

Rows go by ascending id. No database connection is held while the client is slow, and memory is one batch.
Must not import services or families.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol, TypeVar
from urllib.parse import urlencode

from django.conf import settings
from django.http import StreamingHttpResponse
from rest_framework.request import Request

from workers.api.answers import Page
from workers.logs.store import release

T = TypeVar("T")

BATCH: Final = 500


class Rows(Protocol[T]):
    """A list in the database."""

    def after(self, row_id: int, most: int) -> list[T]:
        """The first ``most`` rows with an id above ``row_id``, by id."""
        ...

    def nth(self, number: int) -> int | None:
        """The id of the ``number``-th row if there are more than so many, else None."""
        ...

    def row_id(self, row: T) -> int: ...

    def render(self, rows: Sequence[T]) -> Iterable[object]:
        """The JSON value of each row, or an iterator of the pieces of its text; may ask the database."""
        ...


def bare(empty: bool) -> tuple[str, str]:
    """What stands around the entries of a list that is nothing but an array."""
    return "[", "]"


def listed(
    request: Request,
    rows: Rows[T],
    batch: int = BATCH,
    around: Callable[[bool], tuple[str, str]] = bare,
) -> StreamingHttpResponse:
    """The answer to a list call; ``batch`` rows are read at once. ``around``: told whether there is no entry.

    Without a limit it ends after GANTRY_LIST_CAP entries; if there are more, a Link and a Warning say so.
    """
    headers = {}
    if "limit" in request.query_params or "cursor" in request.query_params:
        page = Page.of(request)
        first = rows.after(page.number() or 0, page.limit + 1)
        if len(first) > page.limit:
            first = first[: page.limit]
            headers["Link"] = next_link(request, rows.row_id(first[-1]))
        most = len(first)
    else:
        most = settings.GANTRY_LIST_CAP
        first = rows.after(0, min(batch, most))
        last = rows.nth(most) if len(first) == min(batch, most) else None
        if last is not None:
            headers["Link"] = next_link(request, last)
            headers["Warning"] = f'299 - "only the first {most} entries: the Link leads on"'
    text = _text(rows, first, most, batch, around(not first))
    if request.method == "HEAD":
        text = iter(())
    return StreamingHttpResponse(text, content_type="application/json", headers=headers)


def array(values: Iterable[object]) -> Iterator[str]:
    """The values separated by commas, piece by piece. One that is an iterator gives its text in pieces."""
    between = ""
    for value in values:
        if isinstance(value, Iterator):
            yield between
            yield from value
        else:
            yield between + as_text(value)
        between = ","


def as_text(value: object) -> str:
    """JSON as all answers are written."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def encoded(pieces: Iterable[str]) -> Iterator[bytes]:
    """The body, in pieces of about 64 KiB; without a database connection while one is sent."""
    held: list[str] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= 65_536:
            release()
            yield "".join(held).encode()
            held, size = [], 0
    release()
    yield "".join(held).encode()


def _text(rows: Rows[T], first: list[T], most: int, batch: int, around: tuple[str, str]) -> Iterator[bytes]:
    def values() -> Iterator[object]:
        found, left = first, most
        while found:
            yield from rows.render(found)
            left -= len(found)
            found = rows.after(rows.row_id(found[-1]), min(batch, left)) if left > 0 else []

    def pieces() -> Iterator[str]:
        yield around[0]
        yield from array(values())
        yield around[1]

    return encoded(pieces())


def next_link(request: Request, cursor: object) -> str:
    """A Link header to the same list behind ``cursor``."""
    again = {**request.query_params.dict(), "cursor": str(cursor)}
    url = request.build_absolute_uri(f"{request._request.path}?{urlencode(again)}")
    return f'<{url}>; rel="next"'
