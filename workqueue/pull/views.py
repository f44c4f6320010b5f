"""The pull workers' calls over HTTP: parse, one call, render."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, ClassVar, Final, cast

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import ParseError, PermissionDenied
from rest_framework.parsers import BaseParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.views import APIView

from workers.api.answers import answer
from workers.tenants.identity import Identity
from workers.vocabulary.errors import InvalidInput, NotFound
from workqueue.calls import WorkqueueView
from workqueue.pull import bodies, claiming, reporting, schema, tokens, wire
from workqueue.pull.claiming import Limits

_ALGORITHMS: Final = {"BY_NUMBER": "limit", "BY_SIZE": "size"}
_LARGEST: Final = 2**62


class PullView(WorkqueueView):
    """/worker/jobs"""

    scopes: ClassVar[dict[str, str]] = {"POST": "worker"}

    @extend_schema(**schema.PULL)
    def post(self, request: Request) -> HttpResponse:
        """Hand out elements; 404 when there is no work."""
        body = self.body()
        types, limits = _types(body.get("types")), _limits(body)
        found = cast(Identity, request.auth)
        named = bool(request.META.get("HTTP_X_TENANT_ID"))
        tenants = claiming.tenants_of(found.user_id, found.tenant_id, named=named)
        handed = claiming.claim(tenants, types, limits, found.user_name)
        if not handed:
            raise NotFound("there is no work: ask again later")
        return answer([wire.render(item) for item in handed])


class ByElementToken(BaseAuthentication):
    """X-Token is the element's own token; whatever else comes along authorises nothing."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        claim = tokens.read(request.META.get("HTTP_X_TOKEN", ""))
        if claim is None:
            raise PermissionDenied("X-Token must be the token of the element, as it was handed out")
        tenant = reporting.tenant_of(claim)
        found = Identity(tenant.pk, tenant.name, None, "pull worker", frozenset(), "signed")
        request._request.identity = found  # type: ignore[attr-defined]  # for the access log
        return found, found


class ReportBody(BaseParser):
    """Puts the body into a file, however long it is."""

    media_type = "application/json"

    def parse(  # type: ignore[override]  # the body itself, in a file
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> IO[bytes]:
        length = int((parser_context or {})["request"].META.get("CONTENT_LENGTH") or 0)
        return bodies.receive(stream, length)


class ElementView(APIView):
    """Base: an element that the token names."""

    authentication_classes = (ByElementToken,)
    permission_classes = (AllowAny,)

    def claim(self, job_id: str, element_id: str) -> tokens.Claim:
        """The claim, if it is for what the path names."""
        found = tokens.read(self.request.META.get("HTTP_X_TOKEN", ""))
        if found is None or (str(found.job), str(found.number)) != (job_id, element_id):
            raise PermissionDenied("this token is another element's: each reports with its own")
        return found


class ReportView(ElementView):
    """/worker/jobs/{id}/elements/{eid}"""

    parser_classes = (ReportBody,)

    @extend_schema(**schema.REPORT)
    def put(self, request: Request, job_id: str, element_id: str) -> HttpResponse:
        """An attempt has ended."""
        claim = self.claim(job_id, element_id)
        body = cast(IO[bytes], request.data)
        if not hasattr(body, "read"):
            raise ParseError("the body is empty: send returncode, host, log and timestamp")
        with body:
            told = bodies.parse(body)
        with told.spool:
            reporting.report(claim, told)
        return HttpResponse(status=200)


class MonitoringView(ElementView):
    """/worker/jobs/{id}/elements/{eid}/monitoring"""

    @extend_schema(**schema.MONITORING)
    def put(self, request: Request, job_id: str, element_id: str) -> HttpResponse:
        """How far an attempt is."""
        claim = self.claim(job_id, element_id)
        body = cast(dict[str, Any], request.data)
        transferred = _number(body, "transferred", least=-1)
        elapsed, instant = _number(body, "elapsed"), _number(body, "instant")
        reporting.monitor(claim, transferred=int(transferred), elapsed=float(elapsed), instant=float(instant))
        return HttpResponse(status=200)


class EndpointView(WorkqueueView):
    """/site/api/v1.0/endpoint/{siteid}"""

    scopes: ClassVar[dict[str, str]] = {"GET": "worker"}

    @extend_schema(**schema.ENDPOINT)
    def get(self, request: Request, site_id: str) -> HttpResponse:
        """Where a site is, for pull workers."""
        found = cast(Identity, request.auth)
        named = bool(request.META.get("HTTP_X_TENANT_ID"))
        tenants = claiming.tenants_of(found.user_id, found.tenant_id, named=named)
        site = claiming.site_of(tenants, site_id)
        body: dict[str, Any] = {"endpoints": claiming.hosts(site)}
        if site.cas:
            body["cas"] = site.cas
        return answer(body)


def _types(given: Any) -> list[int]:
    if not isinstance(given, list) or not given:
        raise InvalidInput(
            "types is missing: a list of job types, LIST 0, COPY 1, REMOVE 2, RENAME 3, MKDIR 4",
            field="types",
        )
    if not all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= 4 for item in given):
        raise InvalidInput("types must be integers from 0 to 4", field="types")
    return list(given)


def _limits(body: Mapping[str, Any]) -> Limits:
    given = body.get("algorithm")
    name = "BY_NUMBER" if given is None else str(given).upper() if isinstance(given, str) else ""
    if name not in _ALGORITHMS:
        raise InvalidInput("algorithm must be BY_NUMBER or BY_SIZE", field="algorithm")
    wanted = _ALGORITHMS[name]
    args = body.get("algorithm.args")
    if args is None:
        args = {}
    if not isinstance(args, dict) or set(args) - {wanted}:
        raise InvalidInput(
            f"algorithm.args must be an object with {wanted} alone: {name} takes nothing else",
            field="algorithm.args",
        )
    value = args.get(wanted)
    if value is None:
        value = claiming.NUMBER if wanted == "limit" else claiming.SIZE
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
        raise InvalidInput(
            f"algorithm.args.{wanted} must be a whole number from 1 on", field="algorithm.args"
        )
    return Limits(number=value) if wanted == "limit" else Limits(size=value)


def _number(body: Mapping[str, Any], name: str, least: float = 0) -> float:
    value = body.get(name)
    if value is None:
        raise InvalidInput(f"{name} is missing", field=name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= _LARGEST:
        raise InvalidInput(f"{name} must be a number from {least:g} on", field=name)
    return value
