"""What a request needs, read from its ``data``: pure, by type.

An amount is a whole number of thousandths: needs are rounded up, so that nothing is admitted that does not
fit. A need is a tuple of (count, size): so many instances of that size, each on some host, all of them in one
aggregate. A size is a tuple of (resource, amount), sorted, without zeros. Source: contract page 50, "data".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from workers.vocabulary.errors import InvalidInput

Size = tuple[tuple[str, int], ...]
Need = tuple[tuple[int, Size], ...]

#: Thousandths in one.
UNIT: Final = 1000
#: The largest amount of one resource, and the most instances of one request.
MOST: Final = 10**15
MOST_INSTANCES: Final = 1000
#: Of a type that is a plain map: as many resources as a host may have.
MOST_RESOURCES: Final = 32
VM: Final = ("VCPU", "Memory", "Disk")

#: Kubernetes' quantities: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_SUFFIXES: Final = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip
#: An exponent or a suffix. No two parts match the same digits: a long text is refused in linear time.
_QUANTITY: Final = re.compile(
    r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:([eE][+-]?[0-9]{1,2})|(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?))"
)
_LONGEST: Final = 64


def amount(value: object, field: str, *, up: bool = True) -> int:
    """A number or a quantity ("500m", "1Gi") in thousandths. InvalidInput names the field."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidInput(f"{field}: must be a number, 0 or more", field=field)
    if isinstance(value, int):
        thousandths = Decimal(max(-1, min(value, MOST + 1))) * UNIT  # whatever it is, it is out of bounds
    elif isinstance(value, float):
        thousandths = Decimal(str(value)) * UNIT  # 0.1 as it is written, not as a float keeps it
    else:
        thousandths = _quantity(value, field)
    if not thousandths.is_finite() or not 0 <= thousandths <= MOST * UNIT:
        raise InvalidInput(f"{field}: must be between 0 and {MOST:.0e}", field=field)
    whole = int(thousandths)
    return whole + (1 if up and thousandths != whole else 0)


def _quantity(text: str, field: str) -> Decimal:
    found = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise InvalidInput(
            f'{field}: "{text[:40]}" is no amount: a number, or one like 500m or 1Gi', field=field
        )
    number, exponent, suffix = found.groups()
    return Decimal(number + (exponent or "")) * _SUFFIXES[suffix or ""] * UNIT


def shown(thousandths: int) -> int | float:
    """The amount as clients write it."""
    return thousandths // UNIT if thousandths % UNIT == 0 else thousandths / UNIT


def need_of(kind: str, data: Mapping[str, Any]) -> Need:
    """What a request of this type needs. InvalidInput names the field of ``data`` that is wrong."""
    if kind == "vm":
        sizes = _instances(data, "instances", VM)
    elif kind == "kube":
        sizes = _instances(data, "pods", None)
    else:
        rest = {
            name: value
            for name, value in data.items()
            if name not in ("host_aggregate", "duration", "project")
        }
        sizes = [_size(rest, "data")]
    _check_optional(data)
    return tuple(sorted((count, size) for size, count in Counter(sizes).items()))


def asked_of(provider: str, need: Need) -> Need:
    """What is asked of a provider for a need: of Kubernetes a place for a pod for each instance, too."""
    if provider != "kubernetes":
        return need
    counts: Counter[Size] = Counter()
    for count, size in need:
        named = dict(size)
        counts[tuple(sorted({**named, "pods": max(named.get("pods", 0), UNIT)}.items()))] += count
    return tuple(sorted((count, size) for size, count in counts.items()))


def bound_to(data: Mapping[str, Any]) -> str:
    """The aggregate that a request wants to go to; "" = any."""
    preset = data.get("host_aggregate")
    if preset is None:
        return ""
    if not isinstance(preset, str) or not preset.strip() or len(preset) > 255:
        raise InvalidInput(
            "data.host_aggregate: must be the name of an aggregate, at most 255 characters",
            field="data.host_aggregate",
        )
    return preset


def digest(owner_id: str, need: Need, aggregate: str) -> str:
    """What a class of waiting entries is recognised by."""
    return hashlib.sha256(json.dumps([owner_id, need, aggregate]).encode()).hexdigest()


def total(need: Need) -> dict[str, int]:
    """All instances together."""
    found: Counter[str] = Counter()
    for count, size in need:
        for name, value in size:
            found[name] += count * value
    return dict(found)


def _instances(data: Mapping[str, Any], key: str, names: tuple[str, ...] | None) -> list[Size]:
    given = data.get(key)
    if not isinstance(given, list) or not given:
        raise InvalidInput(f"data.{key}: must be a list of at least one object", field=f"data.{key}")
    if len(given) > MOST_INSTANCES:
        raise InvalidInput(f"data.{key}: {len(given)} are more than {MOST_INSTANCES}", field=f"data.{key}")
    sizes = []
    for number, instance in enumerate(given):
        field = f"data.{key}[{number}]"
        if not isinstance(instance, dict):
            raise InvalidInput(f"{field}: must be an object of amounts", field=field)
        wanted = instance if names is None else {name: instance[name] for name in names if name in instance}
        sizes.append(_size(wanted, field))
    return sizes


def _size(given: Mapping[str, Any], field: str) -> Size:
    if len(given) > MOST_RESOURCES:
        raise InvalidInput(f"{field}: more than {MOST_RESOURCES} resources", field=field)
    for name in given:
        if not 1 <= len(name) <= 64:
            raise InvalidInput(
                f"{field}: a resource's name has 1 to 64 characters, not {len(name)}", field=field
            )
    size = {name: amount(value, f"{field}.{name}") for name, value in given.items() if value is not None}
    if not any(size.values()):
        raise InvalidInput(f"{field}: at least one amount must be above 0", field=field)
    return tuple(sorted((name, value) for name, value in size.items() if value))


def _check_optional(data: Mapping[str, Any]) -> None:
    if not isinstance(data.get("project"), str | None):
        raise InvalidInput("data.project: must be text", field="data.project")
    duration = data.get("duration")
    if duration is not None and (
        isinstance(duration, bool) or not isinstance(duration, int | float) or not 0 < duration < 1e9
    ):
        raise InvalidInput("data.duration: must be a number of seconds above 0", field="data.duration")
