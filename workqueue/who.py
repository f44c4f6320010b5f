"""On whose behalf something is done: what the rules of visibility look at. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Who(NamedTuple):
    """A user of a tenant. ``user_id`` None: a trusted network. ``operates``: has the scope operate."""

    tenant_id: int
    user_id: int | None
    operates: bool = False
    #: The tenant's jobs are for pull workers.
    pulled: bool = False
