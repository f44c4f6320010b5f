"""Single values of a body: read, or refused by an error that names the field and the fix. Pure.

Absent and null mean the same. Whole numbers may come as text: clients in the wild send "0".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from workers.vocabulary.errors import InvalidInput

_NUMBER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)
BIGGEST: Final = 2**63 - 1


def text(body: Mapping[str, Any], name: str, most: int) -> str | None:
    """A text of at most ``most`` characters; None when it is not there."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be text", field=name)
    if len(value) > most:
        raise InvalidInput(f"{name} has {len(value)} characters: at most {most} are allowed", field=name)
    if "\x00" in value:
        raise InvalidInput(f"{name} has the character NUL in it", field=name)
    return value


def required(body: Mapping[str, Any], name: str, most: int, fix: str) -> str:
    """A text that has to be there and is not empty."""
    value = text(body, name, most)
    if not value:
        raise InvalidInput(f"{name} is missing or empty: {fix}", field=name)
    return value


def whole(value: object) -> int | None:
    """A whole number, also written as text; None when it is none."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def integer(body: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    """A whole number within bounds; None when it is not there."""
    value = body.get(name)
    if value is None:
        return None
    number = whole(value)
    if number is None or not low <= number <= high:
        bounds = f"of {low} or more" if high == BIGGEST else f"from {low} to {high}"
        raise InvalidInput(f"{name} must be a whole number {bounds}", field=name)
    return number


def flag(body: Mapping[str, Any], name: str) -> bool | None:
    """true or false; None when it is not there."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"{name} must be true or false", field=name)
    return value


def texts(body: Mapping[str, Any], name: str, most: int, each: int) -> list[str]:
    """A list of texts that are not blank; [] when it is not there."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > most:
        raise InvalidInput(f"{name} must be a list of at most {most} texts", field=name)
    for number, item in enumerate(value):
        where = f"{name}[{number}]"
        if not isinstance(item, str) or not item.strip() or len(item) > each:
            raise InvalidInput(f"{where} must be text of 1 to {each} characters", field=where)
    return value
