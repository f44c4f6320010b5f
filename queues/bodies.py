"""An entry's data as it is kept, shown and told: pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from workers.vocabulary.errors import InvalidInput

#: What callbacks of this family belong to, as callbacks call it.
OWNER_KIND: Final = "entry"


def data_text(data: Mapping[str, Any]) -> str:
    """``data`` as it is kept and shown: JSON, keys sorted, compact. InvalidInput: it is no JSON."""
    try:
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise InvalidInput(
            "data has a number that is too large for a fraction: write it as a whole number, or smaller",
            field="data",
        ) from None
    except RecursionError:
        raise InvalidInput("data is nested too deeply", field="data") from None


def callback_body(
    *, request_id: str, kind: str, owner_id: str, data: Mapping[str, Any], sequence: int
) -> dict[str, Any]:
    """What the receiver of an admitted entry's callback is sent."""
    return {
        "request_id": request_id,
        "type": kind,
        "owner_id": owner_id,
        "status": "running",
        "data": dict(data),
        "sequence": sequence,
    }
