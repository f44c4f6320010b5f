"""Runs that carry a batch: the family keeps the books of its elements, the engine brings orders and reports.

The engine reaches a family's book by name through GANTRY_BATCHES, never by import.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol, cast

from django.conf import settings

from workers.vocabulary.leases import Lease


class Book(Protocol):
    """A module of a family with these functions."""

    def orders(self, lease: Lease, spec: dict[str, Any]) -> dict[str, Any] | None:
        """What the run has to do, read from the database right before it starts, secrets included (it is
        told to the mover and stored nowhere). None: there is nothing left to do, the run has succeeded."""
        ...

    def reported_until(self, lease: Lease) -> int:
        """Up to which byte of the attempt's report everything is in the books."""
        ...

    def report(self, cursor: Any, lease: Lease, offset: int, lines: Sequence[bytes]) -> None:
        """Enter whole lines, with their ends, of the attempt's report that begin at byte ``offset``; what
        is in the books already is passed over. Called in the transaction that holds the run's lease: no
        other check is needed."""
        ...


@cache
def book(family: str) -> Book:
    """The book of a family; KeyError names the setting when it has none."""
    return cast(Book, import_module(settings.GANTRY_BATCHES[family]))
