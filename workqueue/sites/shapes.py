"""How sites are shown. Pure: from rows to JSON. Nothing here ever shows a secret."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from workers.api.answers import stamp
from workqueue.models import Credential, Site
from workqueue.sites.requests import SECRETS

if TYPE_CHECKING:
    from workqueue.sites.reading import LinkFacts


def site(row: Site, known: Credential | None) -> dict[str, Any]:
    """A site; ``known`` is the caller's credential there."""
    return {
        "id": row.pk,
        "name": row.name,
        "description": row.description,
        "default_path": row.default_path,
        "visibility": row.visibility,
        "endpoints": row.endpoints,
        "cas": row.cas,
        "host_keys": row.host_keys,
        "by_operator": row.by_operator,
        "pull_only": row.pull_only,
        "limits": {
            "max_active_in": row.max_active_in,
            "max_active_out": row.max_active_out,
            "max_bytes_per_s": row.max_bytes_per_s,
        },
        "ban": ban(row),
        "credentials": credentials(known),
        "created_at": stamp(row.created_at),
    }


def ban(row: Site) -> dict[str, Any] | None:
    """The ban as it was set; None where there is none."""
    if not row.ban:
        return None
    return {"mode": row.ban, "message": row.ban_message, "until": stamp(row.ban_until)}


def credentials(known: Credential | None) -> dict[str, Any]:
    """Which are set, and since when; never what they are."""
    if known is None:
        return {"set": [], "changed_at": None}
    kept = ["username"] if known.username else []
    kept += [name for name in SECRETS if getattr(known, f"{name}_id") is not None]
    return {"set": kept, "changed_at": stamp(known.changed_at)}


def link(found: LinkFacts) -> dict[str, Any]:
    """A link with the sentences of its latest changes."""
    return {
        "source": found.source_id,
        "target": found.target_id,
        "streams": found.streams,
        "bytes_per_s": found.throughput,
        "sentence": found.sentence,
        "changed_at": stamp(found.changed_at),
        "changes": [{**each, "at": stamp(datetime.fromisoformat(each["at"]))} for each in found.changes],
    }
