"""The protocol of an external provider of capacity.

A provider answers with everything it has, at one moment; nothing is admitted on what it said too long ago.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from queues.pools import HostAmounts


class Trouble(Exception):
    """It does not answer, refuses, or says what cannot be; the text is for operators and holds no secret."""


@dataclass(frozen=True)
class Reported:
    """An aggregate as a provider tells it: its hosts with what they have and what is used of it."""

    name: str
    hosts: tuple[HostAmounts, ...]


class Provider(Protocol):
    """One external system, reached with one type's options."""

    def capacity(self) -> list[Reported]:
        """All aggregates now; bounded in time by GANTRY_QUEUE_PROVIDER_S. Raises Trouble."""
        ...


#: From a policy's options (secrets resolved) to a provider. Raises InvalidInput for options that cannot work.
Make = Callable[[Mapping[str, Any]], Provider]
