"""The OpenAPI document at /api/schema/ and its pages at /api/docs/.

Both need credentials, as everything does but /healthz, /readyz and static files. A browser that opens the
pages without any is sent to the admin's login. Must not import models.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from django.conf import settings
from django.http import HttpResponse, HttpResponseBase, HttpResponseRedirect
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.views import APIView

from config.http import errors
from workers.tenants.identity import CredentialRefused
from workers.vocabulary.errors import InvalidInput

#: Status -> what it means, for every operation that does not say so itself.
_EVERYWHERE: Final = {
    "401": "No credentials, or bad ones",
    "403": "Known, but not allowed",
    "405": "No such method here; Allow names the others",
    "429": "Too many requests, or as many runs as the tenant may have; Retry-After says when to come back",
    "500": "Something went wrong inside",
    "503": "The database does not answer, or it cannot be done now; see Retry-After",
}
_WITH_BODY: Final = {
    "400": "A value is missing or wrong",
    "413": "The body is too large",
    "415": "The body is not JSON",
}
_CODES: Final = {
    "400": "invalid",
    "401": "token_missing",
    "403": "forbidden",
    "405": "method_not_allowed",
    "413": "too_large",
    "415": "unsupported_media_type",
    "429": "throttled",
    "500": "internal",
    "503": "database",
}


class Credentials(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How clients authenticate, for the document."""

    target_class = "config.http.authentication.GantryAuthentication"
    name = ["bearer", "xToken", "basic", "session"]

    def get_security_definition(self, auto_schema: Any) -> Any:
        return [
            {"type": "http", "scheme": "bearer", "description": "A token of the service (gnt_...)"},
            {"type": "apiKey", "in": "header", "name": "X-Token", "description": "The same token"},
            {
                "type": "http",
                "scheme": "basic",
                "description": "User name, and one of the user's tokens as password",
            },
            {
                "type": "apiKey",
                "in": "cookie",
                "name": settings.SESSION_COOKIE_NAME,
                "description": "The admin's",
            },
        ]

    def get_security_requirement(self, auto_schema: Any) -> Any:
        # One of them is enough: a list means "or".
        return [{name: []} for name in self.name]


class SignedUrl(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The log URLs of callbacks, which need no token."""

    target_class = "workers.api.runs.logs.SignedLogUrl"
    name = "signedUrl"

    def get_security_definition(self, auto_schema: Any) -> Any:
        return {
            "type": "apiKey",
            "in": "query",
            "name": "signature",
            "description": "Part of the log URLs that callbacks carry: one log, one stream, 7 days.",
        }


class ElementToken(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The reports of the workqueue's pull workers, which need nothing but the element's own token."""

    target_class = "workqueue.pull.views.ByElementToken"
    name = "elementToken"

    def get_security_definition(self, auto_schema: Any) -> Any:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "X-Token",
            "description": "The token of an element, as it was handed out: one attempt of it.",
        }


def add_error_answers(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Spectacular's hook: every operation also lists the errors that any of them may answer."""
    for path, methods in result["paths"].items():
        family = errors.family_of(path)
        for operation in methods.values():
            if not operation.get("security"):
                continue
            responses = operation["responses"]
            schema = _shape(family, result)
            for status, text in _wanted(operation).items():
                responses.setdefault(status, _answer(family, status, text, schema))
            operation["responses"] = dict(sorted(responses.items()))
    return result


def _wanted(operation: dict[str, Any]) -> dict[str, str]:
    """The errors that this operation may answer: some come only where there is something to get wrong."""
    wanted = dict(_EVERYWHERE)
    if "requestBody" in operation:
        wanted.update(_WITH_BODY)
    elif any(item["in"] in ("query", "header") for item in operation.get("parameters", ())):
        wanted["400"] = _WITH_BODY["400"]
    return wanted


def _answer(family: str, status: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    example = errors.renderer(family)(int(status), _CODES[status], text, None)
    return {"description": text, "content": {"application/json": {"schema": schema, "example": example}}}


def _shape(family: str, result: dict[str, Any]) -> dict[str, Any]:
    """A reference to the family's error shape; one that no operation documents is read off an example."""
    name = "Error" if family == "api" else f"{family.removesuffix('s').capitalize()}Error"
    components = result.setdefault("components", {}).setdefault("schemas", {})
    if name not in components:
        example = errors.renderer(family)(400, "invalid", "what is wrong", "field")
        components[name] = _schema_of(example, optional=("field",))
    return {"$ref": f"#/components/schemas/{name}"}


def _schema_of(value: Any, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if isinstance(value, dict):
        return {
            "type": "object",
            "properties": {key: _schema_of(inner, optional) for key, inner in value.items()},
            "required": [key for key in value if key not in optional],
        }
    if isinstance(value, bool):
        return {"type": "boolean"}
    return {"type": "integer" if isinstance(value, int) else "string"}


@lru_cache(maxsize=8)
def document(family: str) -> bytes:
    """The document as JSON, made once per process; ``family`` limits it to one of them ("" = everything)."""
    generator: Any = SchemaGenerator()  # type: ignore[no-untyped-call]
    generator._initialise_endpoints()
    if family:
        generator.endpoints = [item for item in generator.endpoints if errors.family_of(item[0]) == family]
    return json.dumps(generator.get_schema(public=True)).encode()


class SchemaView(APIView):
    """/api/schema/"""

    required_scope = "read"

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        """The whole document, or that of ``?family=``."""
        family = request.query_params.get("family", "")
        families = list(dict.fromkeys(name for _, name, _ in errors.ENVELOPES))
        if family and family not in (*families, "api"):
            raise InvalidInput(
                f"there is no family {family!r}: {', '.join((*families, 'api'))}", field="family"
            )
        return HttpResponse(document(family), content_type="application/json")


class DocsView(SpectacularSwaggerSplitView):
    """/api/docs/: Swagger UI from our own static files."""

    url_name = "schema"
    required_scope = "read"
    # OPTIONS would be answered through the page's template.
    metadata_class = None

    def handle_exception(self, exc: Exception) -> HttpResponseBase:  # type: ignore[override]
        if isinstance(exc, CredentialRefused) and self.request.META.get("HTTP_SEC_FETCH_MODE") == "navigate":
            return HttpResponseRedirect(f"/admin/login/?next={quote(self.request.path)}")
        return super().handle_exception(exc)
