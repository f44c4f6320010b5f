"""/api/v1/queues: operators declare pools, policies and quotas; everybody may see what there is for them."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from django.http import HttpResponse, StreamingHttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from queues.operators import parsing, reading, schema, services, shapes, simulate
from queues.operators.parsing import checked_owner, checked_type
from workers.api.answers import ApiView, Page, answer, created, known_parameters
from workers.api.lists import encoded


class OperatorsView(ApiView):
    """Base: everybody reads, operators change."""

    scopes: ClassVar[dict[str, str]] = {
        "GET": "read",
        "POST": "operate",
        "PUT": "operate",
        "DELETE": "operate",
    }

    @property
    def kind(self) -> str:
        """The type in the path."""
        return checked_type(self.kwargs["type"])

    def body(self) -> dict[str, Any]:
        """What was sent: a JSON object, the parser takes nothing else."""
        return cast(dict[str, Any], self.request.data)

    def sight(self) -> reading.Sight:
        """What the asker may see: its tenant's part, an operator everything."""
        return reading.Sight(self.who().tenant_id, self.who().operates)


class PoolsView(OperatorsView):
    """/api/v1/queues/{type}/pools"""

    @extend_schema(**schema.POOLS)
    def get(self, request: Request, **path: str) -> HttpResponse:
        """Aggregates that the tenant may use, by name; operators see all."""
        kind = self.kind
        known_parameters(request, ("limit", "cursor"))
        page = Page.of(request)
        found = reading.pools(kind, self.sight(), after=page.cursor, most=page.limit + 1)
        return page.answer(request, found, lambda pool: shapes.pool(kind, pool), lambda pool: pool.name)

    @extend_schema(**schema.POOL_DECLARE)
    def post(self, request: Request, **path: str) -> HttpResponse:
        """Declare an aggregate, or replace what was declared of it."""
        kind = self.kind
        wanted = parsing.parse_pool(kind, self.body())

        def create() -> tuple[int, dict[str, Any]]:
            new, found = services.declare_pool(kind, wanted)
            return 201 if new else 200, shapes.pool(kind, found)

        status, body = created(request, self.who(), create)
        return answer(body, status)


class PoolView(OperatorsView):
    """/api/v1/queues/{type}/pools/{aggregate}"""

    @extend_schema(**schema.POOL)
    def get(self, request: Request, **path: str) -> HttpResponse:
        """One aggregate as it was declared."""
        kind = self.kind
        found = reading.pool(kind, self.sight(), path["aggregate"])
        if found is None:
            raise services.no_pool(kind, path["aggregate"])
        return answer(shapes.pool(kind, found))

    @extend_schema(**schema.POOL_REMOVE)
    def delete(self, request: Request, **path: str) -> HttpResponse:
        """Take an aggregate away; what runs there keeps what it holds."""
        kind = self.kind
        return answer(shapes.pool(kind, services.remove_pool(kind, path["aggregate"])))


class PolicyView(OperatorsView):
    """/api/v1/queues/{type}/policy"""

    @extend_schema(**schema.POLICY)
    def get(self, request: Request, **path: str) -> HttpResponse:
        """How the type is admitted."""
        kind = self.kind
        return answer(shapes.policy(kind, *reading.policy(kind)))

    @extend_schema(**schema.POLICY_PUT)
    def put(self, request: Request, **path: str) -> HttpResponse:
        """Change it."""
        kind = self.kind
        row = services.set_policy(kind, parsing.parse_policy(self.body()), self.who().tenant_id)
        return answer(shapes.policy(kind, row.mode, row.provider, row.options))


class QuotasView(OperatorsView):
    """/api/v1/queues/{type}/quotas"""

    @extend_schema(**schema.QUOTAS)
    def get(self, request: Request, **path: str) -> HttpResponse:
        """The tenant's owners that have a quota, by owner."""
        kind = self.kind
        known_parameters(request, ("limit", "cursor"))
        page = Page.of(request)
        found = reading.quotas(self.who().tenant_id, kind, after=page.cursor, most=page.limit + 1)
        return page.answer(request, found, lambda owner: shapes.quota(kind, owner), lambda row: row.owner_id)


class QuotaView(OperatorsView):
    """/api/v1/queues/{type}/quotas/{owner_id}"""

    @extend_schema(**schema.QUOTA)
    def get(self, request: Request, **path: str) -> HttpResponse:
        """What one owner may have and has."""
        kind = self.kind
        found = reading.quota(self.who().tenant_id, kind, path["owner_id"])
        if found is None:
            raise services.no_quota(kind, path["owner_id"])
        return answer(shapes.quota(kind, found))

    @extend_schema(**schema.QUOTA_PUT)
    def put(self, request: Request, **path: str) -> HttpResponse:
        """Give an owner these quotas and no others."""
        kind, owner = self.kind, checked_owner(path["owner_id"])
        amounts = parsing.parse_quota(kind, self.body())
        return answer(shapes.quota(kind, services.set_quotas(self.who().tenant_id, kind, owner, amounts)))

    @extend_schema(**schema.QUOTA_REMOVE)
    def delete(self, request: Request, **path: str) -> HttpResponse:
        """Let an owner have as much as there is."""
        kind = self.kind
        return answer(
            shapes.quota(kind, services.remove_quotas(self.who().tenant_id, kind, path["owner_id"]))
        )


class CapacityView(OperatorsView):
    """/api/v1/queues/{type}/capacity"""

    @extend_schema(**schema.CAPACITY)
    def get(self, request: Request, **path: str) -> StreamingHttpResponse:
        """What there is, what is used and what is free, host by host."""
        kind, sight = self.kind, self.sight()
        pieces = shapes.capacity(kind, reading.standing(kind, sight), reading.used_pools(kind, sight))
        text = iter(()) if request.method == "HEAD" else encoded(pieces)
        return StreamingHttpResponse(text, content_type="application/json")


class SimulateView(OperatorsView):
    """/api/v1/queues/{type}/simulate"""

    scopes: ClassVar[dict[str, str]] = {"POST": "read"}  # it changes nothing

    @extend_schema(**schema.SIMULATE)
    def post(self, request: Request, **path: str) -> HttpResponse:
        """What would run, and where everything would stand, if."""
        kind = self.kind
        wish = simulate.parse(kind, self.body())
        return answer(simulate.simulate(self.who().tenant_id, kind, wish))
