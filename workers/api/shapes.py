"""What the shapes of /api/v1 share; each subject has its own, pure functions from a row to JSON.

Source: contract page 00, "Shapes of ours": fields may join, none may change. Must not import services or
views.
"""

from __future__ import annotations

from typing import Any

from workers.models import Run
from workers.vocabulary import families


def owner(row: Run, root: str) -> dict[str, Any]:
    """What the family calls that which the run belongs to, and where it shows it."""
    try:
        found: dict[str, Any] = dict(families.family(row.family).owner(row))
    except KeyError:
        # Rows of a family that this process does not serve (an older release, another installation's dump).
        return {"id": row.owner_id or str(row.pk), "url": None}
    url = found.get("url")
    if isinstance(url, str) and url.startswith("/"):
        found["url"] = root + url
    return found
