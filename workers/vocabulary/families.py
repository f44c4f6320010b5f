"""How the engine reaches a family: by name, through a table in the settings, never by import.

A family's module offers the functions of ``FamilyHooks``; each is pure. One that owes callbacks of objects
that are no runs also offers ``owner_paths``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import Any, Final, Protocol, cast

from django.conf import settings

#: Events of a run that are told to whoever asked for callbacks.
RUNNING: Final = "running"  # an attempt has started
ENDED: Final = "ended"


@dataclass(frozen=True)
class CallbackFacts:
    """What is recorded of a run at the moment of an event, for a callback's body.

    With ``RUNNING`` the state is RUNNING, also where the attempt had ended before anybody could tell.
    """

    run_id: int
    tenant: str
    family: str
    kind: str
    name: str
    owner_id: str
    state: str
    reason: str
    message: str
    exit_code: int | None
    attempt: int
    retries_left: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    by_operator: bool
    image: str | None
    node: str | None
    #: The node's hostname attribute.
    host: str | None
    #: What the runtime found out about the attempt (``runtimes.base.Facts``).
    facts: Mapping[str, Any]
    #: Who told: a node's name, "reconciler", "client" or "operator".
    by: str
    #: Of this callback among those of its object, from 1 on.
    sequence: int
    #: A path of this service with a stream of its log -> URL that needs no token for some days.
    signed_log: Callable[[str, str], str]


class FamilyHooks(Protocol):
    """What the engine asks of a family."""

    def owner(self, run: Any) -> dict[str, str]:
        """{"id", "url"}: the family's own name for what the run belongs to."""
        ...

    def callback(self, facts: CallbackFacts, event: str) -> dict[str, Any]:
        """The body of a callback: ``event`` is RUNNING or ENDED."""
        ...


@cache
def family(name: str) -> FamilyHooks:
    """The hooks of a family; KeyError names the setting when it is not registered."""
    return cast(FamilyHooks, import_module(settings.GANTRY_FAMILIES[name]))


def owner_paths(name: str, kind: str, owner_ids: Sequence[str]) -> dict[str, str]:
    """Where a family shows the objects, no runs, that callbacks belong to: owner_id -> path.

    One look-up for all of them; what is gone, or of a family that is not served, is left out.
    """
    module = settings.GANTRY_FAMILIES.get(name)
    look: Callable[[str, Sequence[str]], dict[str, str]] | None = (
        getattr(import_module(module), "owner_paths", None) if module is not None else None
    )
    return {} if look is None else look(kind, owner_ids)
