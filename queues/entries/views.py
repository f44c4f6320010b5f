"""The queues family over HTTP: read the request, call one service, render the answer.

Must not import models or the worker's side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, cast

from django.conf import settings
from django.http import HttpResponseBase, StreamingHttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from queues.entries import explain, moving, reading, schema, services, wire
from queues.entries.errors import NoSuchEntry
from queues.entries.reading import Listing
from workers.api.answers import Page, answer
from workers.api.lists import array, encoded, next_link
from workers.tenants import idempotency
from workers.tenants.identity import Identity
from workers.vocabulary.errors import InvalidInput, NotFound


class QueuesView(APIView):
    """Base: which scope each method needs (read by config.http.authentication), and who asks."""

    scopes: ClassVar[dict[str, str]] = {"GET": "read", "POST": "submit", "DELETE": "submit"}

    def who(self) -> Identity:
        """Whom this request acts for; authentication has set it."""
        return cast(Identity, self.request.auth)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """A name that nothing can have is refused where something is made or moved, else it is unknown."""
        super().initial(request, *args, **kwargs)
        self.kind: str = kwargs["type"]
        self.request_id: str = kwargs.get("request_id", "")
        for field in ("type", "request_id"):
            name = kwargs.get(field, "a")
            if wire.is_name(name):
                continue
            if request.method == "POST":
                wire.check_name(name, field)
            if field == "request_id":
                raise NoSuchEntry(name)
            raise NotFound(f"there is no queue {name[:40]!r}: nothing can be called so")


class QueueView(QueuesView):
    """/v1/{type}/"""

    @extend_schema(**schema.LIST)
    def get(self, request: Request, **names: str) -> HttpResponseBase:
        """What runs, by admission, then what waits, in the queue's order."""
        given = request.query_params
        statuses = wire.wanted_statuses(given.get("status"))
        return _listed(request, Listing(self.who().tenant_id, self.kind, given.get("owner_id", ""), statuses))

    @extend_schema(**schema.CREATE)
    def post(self, request: Request, **names: str) -> HttpResponseBase:
        """Queue a request for resources."""
        who, wanted = self.who(), wire.parse_entry(self.kind, cast(dict[str, Any], request.data))

        def create() -> tuple[int, dict[str, Any]]:
            return 200, wire.render_ok(wire.render_entry(services.create(who.tenant_id, self.kind, wanted)))

        status, body, _ = idempotency.for_request(request._request, who.tenant_id, who.user_id, create)
        return answer(body, status)


class EntryView(QueuesView):
    """/v1/{type}/{request_id}/"""

    @extend_schema(**schema.RETRIEVE)
    def get(self, request: Request, **names: str) -> HttpResponseBase:
        """One entry, also one that has ended."""
        entry = reading.entry(self.who().tenant_id, self.kind, self.request_id)
        return answer(wire.render_ok(wire.render_entry(entry)))

    @extend_schema(**schema.MOVE)
    def post(self, request: Request, **names: str) -> HttpResponseBase:
        """Move a queued entry."""
        tenant_id = self.who().tenant_id
        try:
            to = wire.parse_move(cast(dict[str, Any], request.data))
        except InvalidInput:
            reading.entry(tenant_id, self.kind, self.request_id)  # an unknown one is told first
            raise
        moving.move(tenant_id, self.kind, self.request_id, to)
        return answer(wire.render_ok({}))

    @extend_schema(**schema.END)
    def delete(self, request: Request, **names: str) -> HttpResponseBase:
        """Withdraw a queued entry, or end a running one."""
        services.end(self.who().tenant_id, self.kind, self.request_id)
        return answer(wire.render_ok({}))


class ConfirmView(QueuesView):
    """/v1/{type}/{request_id}/confirm"""

    @extend_schema(**schema.CONFIRM)
    def post(self, request: Request, **names: str) -> HttpResponseBase:
        """The client has what the entry was admitted for."""
        services.confirm(self.who().tenant_id, self.kind, self.request_id)
        return answer(wire.render_ok({}))


class EntryExplainView(QueuesView):
    """/v1/{type}/{request_id}/explain"""

    @extend_schema(**schema.EXPLAIN)
    def get(self, request: Request, **names: str) -> HttpResponseBase:
        """Why an entry is where it is."""
        found = explain.explain(self.who().tenant_id, self.kind, self.request_id)
        return answer(wire.render_ok(wire.with_stamps(found)))


def _listed(request: Request, listing: Listing) -> StreamingHttpResponse:
    """The documented list: everything, streamed, up to the operator's cap; or a page of it."""
    headers = {}
    if "limit" in request.query_params or "cursor" in request.query_params:
        page = Page.of(request)
        most, found = page.limit, listing.ids(page.limit + 1, page.cursor)
    else:
        most = settings.GANTRY_LIST_CAP
        found = listing.ids(most + 1)
        if len(found) > most:
            headers["Warning"] = f'299 - "only the first {most} entries: the Link leads on"'
    if len(found) > most:
        found = found[:most]
        headers["Link"] = next_link(request, listing.cursor_of(found))

    def pieces() -> Iterator[str]:
        yield '{"data":['
        yield from array(map(wire.render_entry, listing.entries(found)))
        yield '],"ok":true}'

    body = iter(()) if request.method == "HEAD" else encoded(pieces())
    return StreamingHttpResponse(body, content_type="application/json", headers=headers)
