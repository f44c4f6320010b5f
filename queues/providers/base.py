"""The protocol of an external provider of capacity.

A provider answers with everything it has, at one moment; nothing is admitted on what it said too long ago.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from queues import needs
from queues.pools import HostAmounts

_LONGEST_NAME: Final = 255
_LONGEST_RESOURCE: Final = 64


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


def grouped(hosts: Iterable[tuple[str, HostAmounts]]) -> list[Reported]:
    """Hosts with the names of their aggregates, as what is reported; in order of names."""
    found: dict[str, list[HostAmounts]] = defaultdict(list)
    for aggregate, host in hosts:
        found[aggregate].append(host)
    return [
        Reported(name, tuple(sorted(members, key=lambda host: host.name)))
        for name, members in sorted(found.items())
    ]


def checked(reported: list[Reported]) -> list[Reported]:
    """What is said, unless it cannot be: then Trouble. Whoever says it, no host counts twice."""
    hosts: set[str] = set()
    for aggregate in reported:
        _check_name("aggregate", aggregate.name)
        for host in aggregate.hosts:
            _check_name("host", host.name)
            if host.name in hosts:
                raise Trouble(f"it tells of host {host.name} twice")
            hosts.add(host.name)
            for amounts in (host.total, host.outside):
                for resource, amount in amounts.items():
                    if not 1 <= len(resource) <= _LONGEST_RESOURCE or not resource.isprintable():
                        raise Trouble(f"host {host.name} has a resource without a usable name")
                    if not 0 <= amount <= needs.MOST * needs.UNIT:
                        raise Trouble(f"host {host.name} has an amount of {resource} that cannot be")
    return reported


def _check_name(what: str, name: str) -> None:
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
        raise Trouble(f"it tells of a {what} without a usable name: 1 to {_LONGEST_NAME} characters")
