"""What a node offers to transfers, as attributes that runs ask for: protocols that it speaks, its folders."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from workers.scheduling.obstacles import LOCAL_ATTRIBUTE, STORAGE_ATTRIBUTE
from workers.storage.trees.opening import missing

#: The value that such an attribute has; a protocol that is missing has what it lacks in its place.
OFFERED = "yes"


def storage_attributes() -> dict[str, str]:
    """{"storage_sftp": "yes", "storage_gridftp": "what it lacks", ..., "local:/data": "yes"}."""
    found = {
        f"{STORAGE_ATTRIBUTE}{protocol.lower()}": lack or OFFERED for protocol, lack in missing().items()
    }
    return found | {
        f"{LOCAL_ATTRIBUTE}{folder}": OFFERED
        for folder in settings.GANTRY_LOCAL_SITES
        if Path(folder).is_dir()
    }
