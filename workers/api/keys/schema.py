"""What the OpenAPI document says about signing keys. As ``workers.api.schema``."""

from __future__ import annotations

from typing import Any, Final

from workers.api.keys import serializers as s
from workers.api.schema import KEY, PAGE, TENANT_HEADER, operation, shown

KEY_EXAMPLE: Final[dict[str, Any]] = {
    "id": "9c56cc51b374c3ba",
    "algorithm": "Ed25519",
    "public_key": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "created_at": "2026-11-22T10:00:00.000000Z",
    "retired_at": None,
}
KEYS: Final = operation(
    "keys_list",
    "keys",
    "The public keys that verify the tenant's receipts, the one in use and those before it",
    {200: s.SigningKeySerializer(many=True)},
    parameters=[TENANT_HEADER, *PAGE],
    examples=[shown("a key", KEY_EXAMPLE)],
)
KEY_CREATE: Final = operation(
    "keys_create",
    "keys",
    "Replace the key in use; what it signed stays verifiable, its private half is deleted",
    {201: s.SigningKeySerializer},
    parameters=[TENANT_HEADER, KEY],
    examples=[shown("made", KEY_EXAMPLE, "201")],
)
