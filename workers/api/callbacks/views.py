"""/api/v1/callbacks: what is owed, what became of it, replays, disabled URLs, secrets, a test ping."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from django.db.models import Q, QuerySet
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from workers import addresses
from workers.api.answers import ApiView, Page, answer, created, known_parameters, moment, root_of
from workers.api.answers import checked as checked_body
from workers.api.callback_header import checked
from workers.api.callbacks import schema, serializers, shapes
from workers.callbacks import operations, outbox, signing
from workers.models import Callback, CallbackAttempt, CallbackSecret, DisabledUrl
from workers.vocabulary import families
from workers.vocabulary.errors import InvalidInput

_LIST: Final = (
    "state", "url", "receiver", "family", "owner", "event", "created_after", "created_before",
    "limit", "cursor", "all_tenants",
)  # fmt: skip


def chosen(request: Request, rows: QuerySet[Callback]) -> QuerySet[Callback]:
    """``rows`` narrowed down by the request's filters."""
    given = request.query_params
    state = given.get("state")
    if state is not None:
        if state.lower() not in Callback.State.values:
            raise InvalidInput(
                f"state is {state[:40]!r}: it must be one of {', '.join(Callback.State.values)}",
                field="state",
            )
        rows = rows.filter(state=state.lower())
    for name, column in (("url", "url"), ("family", "family"), ("owner", "owner_id"), ("event", "event")):
        if name in given:
            rows = rows.filter(**{column: given[name]})
    if "receiver" in given:
        rows = rows.filter(_of_receiver(given["receiver"].strip().lower()))
    after, before = moment(request, "created_after"), moment(request, "created_before")
    if after is not None:
        rows = rows.filter(created_at__gte=after)
    if before is not None:
        rows = rows.filter(created_at__lt=before)
    return rows


def _of_receiver(text: str) -> Q:
    """scheme://host:port, or host:port, or a host."""
    if "://" in text:
        addresses.parse(text, field="receiver", credentials=True)
        return Q(receiver=outbox.receiver(text))
    exact = [f"{scheme}://{text}" for scheme in ("http", "https")]
    default = [f"http://{text}:80", f"https://{text}:443"]
    return Q(receiver__in=[*exact, *default])


def _attempts(callback_ids: list[int]) -> dict[int, list[CallbackAttempt]]:
    """The newest 100 attempts of each, oldest first, in one query."""
    found: dict[int, list[CallbackAttempt]] = {}
    for row in CallbackAttempt.objects.filter(callback_id__in=callback_ids).order_by("pk"):
        found.setdefault(row.callback_id, []).append(row)
    return {key: rows[-100:] for key, rows in found.items()}


def _paths(rows: Iterable[Callback]) -> dict[tuple[str, str], str]:
    """Where their families show what callbacks without a run belong to; one look-up for each family."""
    asked: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.run is None:
            asked.setdefault((row.family, row.owner_kind), []).append(row.owner_id)
    return {
        (family, owner_id): path
        for (family, kind), ids in asked.items()
        for owner_id, path in families.owner_paths(family, kind, ids).items()
    }


def _detail(request: Request, row: Callback) -> HttpResponse:
    return answer(shapes.detail(row, _attempts([row.pk]).get(row.pk, []), root_of(request), _paths([row])))


class CallbacksView(ApiView):
    """/api/v1/callbacks"""

    @extend_schema(**schema.CALLBACKS)
    def get(self, request: Request) -> HttpResponse:
        """The tenant's callbacks, the newest first."""
        known_parameters(request, _LIST)
        page, tenant_id = Page.of(request), self.tenant_id()
        rows = Callback.objects.select_related("tenant", "run").defer("body", "run__spec").order_by("-pk")
        if tenant_id is not None:
            rows = rows.filter(tenant_id=tenant_id)
        if (last := page.number()) is not None:
            rows = rows.filter(pk__lt=last)
        found = list(chosen(request, rows)[: page.limit + 1])
        tries, root, paths = _attempts([row.pk for row in found]), root_of(request), _paths(found)
        return page.answer(
            request,
            found,
            lambda row: shapes.callback(row, tries.get(row.pk, []), root, paths),
            lambda row: row.pk,
        )


class CallbackView(ApiView):
    """/api/v1/callbacks/{id}"""

    @extend_schema(**schema.CALLBACK)
    def get(self, request: Request, callback_id: int) -> HttpResponse:
        """One callback with its body and attempts."""
        return _detail(request, operations.find(self.tenant_id(), callback_id))


class CallbackReplayView(ApiView):
    """/api/v1/callbacks/{id}/replay"""

    required_scope = "operate"

    @extend_schema(**schema.REPLAY)
    def post(self, request: Request, callback_id: int) -> HttpResponse:
        """Send one again, under the same webhook-id."""
        return _detail(request, operations.replay(self.tenant_id(), callback_id))


class CallbacksReplayView(ApiView):
    """/api/v1/callbacks/replay"""

    required_scope = "operate"

    @extend_schema(**schema.REPLAY_RANGE)
    def post(self, request: Request) -> HttpResponse:
        """Send again what a time range holds."""
        wanted = checked_body(serializers.ReplayRangeSerializer(data=request.data))
        if wanted["to"] <= wanted["from"]:
            raise InvalidInput("to is not after from: nothing lies between them", field="to")
        count, more = operations.replay_range(
            self.tenant_id(),
            operations.Selection(
                since=wanted["from"],
                until=wanted["to"],
                state=wanted.get("state", Callback.State.DEAD),
                url=wanted.get("url", ""),
                family=wanted.get("family", ""),
            ),
        )
        return answer({"replayed": count, "more": more})


class CallbackTestView(ApiView):
    """/api/v1/callbacks/test"""

    @extend_schema(**schema.TEST)
    def post(self, request: Request) -> HttpResponse:
        """Send one signed ping to a URL now; the answer says what came of it."""
        url = checked(checked_body(serializers.CallbackTestSerializer(data=request.data))["url"], "url")
        message_id, sent = operations.test(self.who().tenant_id, self.who().tenant_name, url)
        return answer(
            {
                "url": url,
                "webhook_id": message_id,
                "delivered": sent.accepted,
                "status": sent.status,
                "error": sent.error or None,
                "ms": sent.ms,
            }
        )


class DisabledUrlsView(ApiView):
    """/api/v1/callbacks/disabled"""

    @extend_schema(**schema.DISABLED)
    def get(self, request: Request) -> HttpResponse:
        """URLs that answered 410, the newest first."""
        known_parameters(request, ("limit", "cursor", "all_tenants"))
        page, tenant_id = Page.of(request), self.tenant_id()
        rows = DisabledUrl.objects.select_related("tenant").order_by("-pk")
        if tenant_id is not None:
            rows = rows.filter(tenant_id=tenant_id)
        if (last := page.number()) is not None:
            rows = rows.filter(pk__lt=last)
        return page.answer(request, list(rows[: page.limit + 1]), shapes.disabled, lambda row: row.pk)


class DisabledUrlEnableView(ApiView):
    """/api/v1/callbacks/disabled/{id}/enable"""

    @extend_schema(**schema.ENABLE)
    def post(self, request: Request, disabled_id: int) -> HttpResponse:
        """Let callbacks go to a URL again."""
        return answer(shapes.disabled(operations.enable(self.tenant_id(), disabled_id)))


class CallbackSecretsView(ApiView):
    """/api/v1/callbacks/secrets"""

    @extend_schema(**schema.SECRETS)
    def get(self, request: Request) -> HttpResponse:
        """The tenant's secrets without their values, the newest first."""
        known_parameters(request, ("limit", "cursor"))
        page = Page.of(request)
        rows = CallbackSecret.objects.filter(tenant_id=self.who().tenant_id).order_by("-pk")
        if (last := page.number()) is not None:
            rows = rows.filter(pk__lt=last)
        return page.answer(request, list(rows[: page.limit + 1]), shapes.secret, lambda row: row.pk)

    @extend_schema(**schema.SECRET_CREATE)
    def post(self, request: Request) -> HttpResponse:
        """Make a secret that signs beside the one in use."""
        who = self.who()

        def create() -> tuple[int, dict[str, Any]]:
            row, value = signing.make(who.tenant_id)
            return 201, {**shapes.secret(row), "secret": value}

        status, body = created(request, who, create, secret=True)
        return answer(body, status)


class CallbackSecretView(ApiView):
    """/api/v1/callbacks/secrets/{id}"""

    scopes: ClassVar[dict[str, str]] = {"DELETE": "submit"}

    @extend_schema(**schema.SECRET_REVOKE)
    def delete(self, request: Request, secret_id: int) -> HttpResponse:
        """End a secret."""
        return answer(shapes.secret(signing.revoke(self.who().tenant_id, secret_id)))
