"""What the OpenAPI document says about each route of /api/v1, with examples: arguments of ``extend_schema``.

Must not import views, services or models.
"""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import OpenApiExample, OpenApiParameter

TENANT_HEADER: Final = OpenApiParameter(
    "X-Tenant-Id",
    str,
    OpenApiParameter.HEADER,
    description="The tenant that the request acts for; without it the user's default tenant.",
)


KEY: Final = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description=(
        "The same user's same key and body within 24 hours create one thing and get one answer; one that "
        "showed a secret is not kept: then the repetition is 409 and names the id of what was made."
    ),
)


CALLBACK_HEADER: Final = OpenApiParameter(
    "X-Callback-Url",
    str,
    OpenApiParameter.HEADER,
    description="http or https; told when an attempt starts and when it ends (docs/callbacks.md).",
)


ALL: Final = OpenApiParameter(
    "all_tenants", bool, description="1: every tenant's runs; needs the scope operate."
)


PAGE: Final = [
    OpenApiParameter(
        "limit", int, description="1 to 1000, 100 without. A Link header with rel=next leads on."
    ),
    OpenApiParameter("cursor", str, description="Where the page begins: from the Link header."),
]


def shown(name: str, value: object, status: str = "200") -> OpenApiExample:
    return OpenApiExample(name, value=value, response_only=True, status_codes=[status])


def asked(name: str, value: object) -> OpenApiExample:
    return OpenApiExample(name, value=value, request_only=True)


def operation(
    name: str,
    tag: str,
    summary: str,
    responses: dict[Any, Any],
    *,
    parameters: list[Any] | None = None,
    request: Any = None,
    examples: list[OpenApiExample] | None = None,
) -> dict[str, Any]:
    return {
        "operation_id": name,
        "tags": [tag],
        "summary": summary,
        "parameters": [TENANT_HEADER, *(parameters or [])],
        "request": request,
        "responses": responses,
        "examples": examples or [],
    }
