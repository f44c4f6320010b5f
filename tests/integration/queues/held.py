"""A journal looked through for what is held: at every moment what is booked, within what there is."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tests.integration.queues.journal import Row


def check_capacity(rows: list[Row]) -> int:
    """Whenever a commit is through with a host's resource, what is held of it is the sum of its bookings; and
    where something was booked it is not above the total. Returns how many times."""
    last = {(row.txid, resource): row.serial for row in rows if (resource := _resource(row)) is not None}
    bookings: dict[int, dict[int, int]] = defaultdict(dict)
    there: dict[int, dict[str, Any]] = {}
    taken: set[tuple[int, int]] = set()
    checked = 0
    for row in rows:
        resource = _resource(row)
        if resource is None:
            continue
        if row.what == "queues_hostresource":
            there[resource] = row.new or {}
        elif row.new is not None:
            bookings[resource][row.new["id"]] = row.new["amount"]
            taken.add((row.txid, resource))
        else:
            del bookings[resource][(row.old or {})["id"]]
        if last[row.txid, resource] == row.serial:
            now = there[resource]
            assert now["held"] == sum(bookings[resource].values()), f"{row.serial}: {now}"
            if (row.txid, resource) in taken:
                assert now["held"] <= now["total"] - now["outside"], f"{row.serial}: {now}"
            checked += 1
    return checked


def _resource(row: Row) -> int | None:
    there = row.new or row.old or {}
    if row.what == "queues_booking":
        return int(there["resource_id"])
    return int(there["id"]) if row.what == "queues_hostresource" else None
