"""How the engine reaches a family: by name, through a table in the settings, never by import.

A family's module offers the functions of ``FamilyHooks``; each is pure.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Protocol, cast

from django.conf import settings


class FamilyHooks(Protocol):
    """What the engine asks of a family."""

    def owner(self, run: Any) -> dict[str, str]:
        """{"id", "url"}: the family's own name for what the run belongs to."""
        ...


@cache
def family(name: str) -> FamilyHooks:
    """The hooks of a family; KeyError names the setting when it is not registered."""
    return cast(FamilyHooks, import_module(settings.GANTRY_FAMILIES[name]))
