"""Which endpoint of a site an attempt goes to, and what a node needs for it.

Source: contract page 40: protocol is a preference, each end uses its site's endpoint of that protocol, else
its first; another one after a failure. Nodes say what they speak, and which folders they offer, in their
attributes (``workers.scheduling.obstacles``). Pure but for ``roots``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

from django.db import connection

from workers.scheduling.obstacles import LOCAL_ATTRIBUTE, STORAGE_ATTRIBUTE
from workers.vocabulary.transfers.reach import Protocol
from workqueue.models import Site


def spoken(name: str) -> str:
    """Our word for a documented one: SSH is SFTP."""
    return Protocol.SFTP if name == "SSH" else name


def choose(site: Site, preference: str, turn: int) -> int:
    """The index of the endpoint for an attempt. ``turn``: how many of them were to blame before."""
    protocols = [spoken(item["protocol"]) for item in site.endpoints]
    wanted = spoken(preference)
    first = protocols.index(wanted) if wanted in protocols else 0
    order = [first, *(index for index in range(len(protocols)) if index != first)]
    return order[turn % len(order)]


def roots() -> set[str]:
    """The folders that nodes offer as sites."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT DISTINCT key FROM workers_node n CROSS JOIN LATERAL jsonb_object_keys(n.attributes) key
               WHERE n.mode <> 'removed' AND starts_with(key, %s)""",
            [LOCAL_ATTRIBUTE],
        )
        return {key.removeprefix(LOCAL_ATTRIBUTE) for (key,) in cursor.fetchall()}


def root_of(path: str, offered: Collection[str]) -> str | None:
    """The folder that a node offers and that is ``path`` or above it, the closest one; None: no such."""
    above = [str(folder) for folder in (PurePosixPath(path), *PurePosixPath(path).parents)]
    return next((folder for folder in above if folder in offered), None)


def needs(endpoint: Mapping[str, Any], offered: Collection[str]) -> dict[str, list[str]] | str:
    """Constraints for a run that goes to an endpoint, or why no node can take it: a sentence."""
    protocol = spoken(endpoint["protocol"])
    found = {f"{STORAGE_ATTRIBUTE}{protocol.lower()}": ["yes"]}
    if protocol == Protocol.LOCAL:
        root = root_of(endpoint.get("path") or "/", offered)
        if root is None:
            return (
                f"no node offers the folder {endpoint.get('path')}: start a worker there whose "
                "GANTRY_LOCAL_SITES names it"
            )
        found[f"{LOCAL_ATTRIBUTE}{root}"] = ["yes"]
    return found
