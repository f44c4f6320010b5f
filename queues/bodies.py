"""What is kept and told of an entry's data: pure.

``data_text`` is the one spelling of Data: the wire's, the callback's and the database's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def data_text(data: Mapping[str, Any]) -> str:
    """The document's form: a JSON text, keys sorted, compact."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def callback_body(
    request_id: str, kind: str, owner_id: str, data: Mapping[str, Any], sequence: int
) -> dict[str, Any]:
    """The callback of an admission (contract page 50, "When admitted")."""
    return {
        "request_id": request_id,
        "type": kind,
        "owner_id": owner_id,
        "status": "running",
        "data": data,
        "sequence": sequence,
    }
