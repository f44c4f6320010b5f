"""How far staging has come, in words: "fetching 1 of 2: 312 of 900 MiB". Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_UNITS: Final = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"), (1, "B"))


def amount(size: int) -> str:
    """A size for a person: 1.5 GiB, 312 MiB, 17 B."""
    unit, name = next(((unit, name) for unit, name in _UNITS if size >= unit), _UNITS[-1])
    return f"{size / unit:.1f} {name}" if unit == 1024**3 else f"{size // unit} {name}"


@dataclass
class Progress:
    """Of one file. ``verb`` is "fetching" or "storing"; ``total`` None when nobody knows."""

    tell: Callable[[str], None]
    verb: str
    number: int
    of: int
    total: int | None
    moved: int = 0
    #: How far any try came.
    most: int = 0

    def add(self, count: int) -> None:
        """So many bytes more."""
        self.moved += count
        self.most = max(self.most, self.moved)
        self.say()

    def say(self, trouble: str = "") -> None:
        """Tell how far it is, and what stands in its way."""
        far = amount(self.moved) if self.total is None else f"{amount(self.moved)} of {amount(self.total)}"
        self.tell(f"{self.verb} {self.number} of {self.of}: {far}" + (f"; {trouble}" if trouble else ""))
