"""What operators send, checked: pools, policies, quotas. Pure; InvalidInput names the field that is wrong.

Capacity and quotas are rounded down to thousandths, as needs are rounded up: nothing is promised that is not
there. Source: contract page 50, "Ours, shapes".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from queues import needs
from queues.entries import wire
from queues.models import TypePolicy
from queues.operators import providers
from queues.pools import HostAmounts
from workers.vocabulary.errors import InvalidInput

MOST_HOSTS: Final = 10_000
#: Longest name of an aggregate, a host or an owner; of a resource.
LONGEST: Final = 255
LONGEST_RESOURCE: Final = 64
#: Words that other families own below /v1: no queue is called so.
_TAKEN: Final = ("tasks",)


@dataclass(frozen=True)
class PoolRequest:
    """An aggregate to be declared. ``tenants``: names of those who may use it, none = all."""

    aggregate: str
    hosts: Sequence[HostAmounts]
    tenants: Sequence[str]


@dataclass(frozen=True)
class PolicyRequest:
    """What a policy shall become; None = as it is. ``options`` are the provider's, as sent."""

    mode: str | None
    provider: str | None
    options: Mapping[str, Any]


def checked_type(text: str) -> str:
    """A type as clients can write it into a path of the family."""
    if text in _TAKEN:
        raise InvalidInput(
            f"type: {text} is another family's word below /v1, no type of a queue", field="type"
        )
    return wire.check_name(text, "type")


def checked_owner(text: str) -> str:
    """An owner_id as requests can have it."""
    return _name(text, "owner_id")


def parse_pool(kind: str, body: Mapping[str, Any]) -> PoolRequest:
    """The body of a POST to pools."""
    aggregate = _name(body.get("aggregate"), "aggregate")
    given = body.get("hosts")
    if not isinstance(given, list):
        raise InvalidInput("hosts: must be a list of objects with a name and amounts", field="hosts")
    if len(given) > MOST_HOSTS:
        raise InvalidInput(f"hosts: {len(given)} are more than {MOST_HOSTS} in one aggregate", field="hosts")
    hosts: dict[str, HostAmounts] = {}
    for number, item in enumerate(given):
        field = f"hosts[{number}]"
        if not isinstance(item, dict):
            raise InvalidInput(f"{field}: must be an object with a name and amounts", field=field)
        name = _name(item.get("name"), f"{field}.name")
        if name in hosts:
            raise InvalidInput(f"{field}.name: {name[:40]!r} is there twice", field=f"{field}.name")
        rest = {key: value for key, value in item.items() if key != "name" and value is not None}
        hosts[name] = HostAmounts(name, _amounts(kind, rest, field), {})
    return PoolRequest(aggregate, list(hosts.values()), _tenants(body.get("tenants")))


def parse_policy(body: Mapping[str, Any]) -> PolicyRequest:
    """The body of a PUT of a policy. What it does not name stays as it is."""
    given = {name: value for name, value in body.items() if value is not None}
    mode, provider = given.pop("mode", None), given.pop("provider", None)
    if mode is not None and mode not in TypePolicy.Mode.values:
        raise InvalidInput(f"mode: must be {' or '.join(TypePolicy.Mode.values)}", field="mode")
    if provider is not None:
        providers.available(provider)
    return PolicyRequest(mode, provider, given)


def parse_quota(kind: str, body: Mapping[str, Any]) -> dict[str, int]:
    """The body of a PUT of an owner's quotas: {resource: thousandths}, without those that are null."""
    return _amounts(kind, {name: value for name, value in body.items() if value is not None}, "")


def parse_one_quota(kind: str, resource: str, text: str) -> int | None:
    """A quota as somebody types it, "" = none."""
    found = _amounts(kind, {resource: text.strip()} if text.strip() else {}, "")
    return found.get(resource)


def _name(given: object, field: str) -> str:
    if not isinstance(given, str) or not given.strip() or len(given) > LONGEST:
        raise InvalidInput(f"{field}: must be text of 1 to {LONGEST} characters", field=field)
    return given


def _amounts(kind: str, given: Mapping[str, Any], where: str) -> dict[str, int]:
    if len(given) > needs.MOST_RESOURCES:
        raise InvalidInput(
            f"{where or 'body'}: {len(given)} are more than {needs.MOST_RESOURCES} resources",
            field=where or None,
        )
    found = {}
    for name, value in given.items():
        field = f"{where}.{name[:LONGEST_RESOURCE]}" if where else name[:LONGEST_RESOURCE]
        if not 1 <= len(name) <= LONGEST_RESOURCE:
            raise InvalidInput(
                f"{field}: a resource's name has 1 to {LONGEST_RESOURCE} characters, not {len(name)}",
                field=field,
            )
        if kind == "vm" and name not in needs.VM:
            # Nothing can ask for it: most likely it is misspelt.
            raise InvalidInput(
                f"{field}: the resources of type vm are VCPU, Memory (MB) and Disk (GB)", field=field
            )
        found[name] = needs.amount(value, field, up=False)
    return found


def _tenants(given: object) -> list[str]:
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise InvalidInput("tenants: must be a list of names; an empty one opens it to all", field="tenants")
    return sorted(set(given))
