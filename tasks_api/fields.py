"""Readers of single JSON values: each gives the typed value or an error that names field, value and fix.

Pure: no database, no HTTP. The rules are those of the original's JSON library (Gson), which old clients
rely on: numbers and true/false become text where text is due, numbers in quotes are numbers, 2048.0 is
2048. Absent, null, false, and empty lists and objects mean "not used" (contract page 10).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from tasks_api.codes import Malformed, Missing, NotAllowed

#: Linux refuses a single argument or NAME=value longer than this, in bytes (MAX_ARG_STRLEN less its NUL).
LONGEST_ARGUMENT: Final = 128 * 1024 - 1
LONGEST_URL: Final = 2048

#: No two parts of it take the same digits: a long text that is none is refused at once.
_NUMBER: Final = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")


def unused(value: object) -> bool:
    """True for what means "not used": absent, null, false, an empty list or object."""
    return value is None or value is False or value == [] or value == {}


def kind(value: object, *, secret: bool = False) -> str:
    """What a JSON value is, for a message; of a ``secret`` one nothing is quoted."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if secret and isinstance(value, int | float | str):
        return "text" if isinstance(value, str) else "a number"
    if isinstance(value, int | float):
        return f"the number {show(value)}"
    if isinstance(value, str):
        return f"the text {show(value)}"
    return "a list" if isinstance(value, list) else "an object"


def show(value: object) -> str:
    """A value as it can stand in a message: short, on one line."""
    shown = repr(value) if isinstance(value, str) else str(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def text(value: object, field: str) -> str:
    """Text; finite numbers and true/false become text, null is blank. No NUL, no lone surrogates."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):  # an int may be beyond any float
            raise Malformed(f"{field} is a number that is too large: write it as text", field=field)
        return str(value)
    if not isinstance(value, str):
        raise Malformed(f"{field} is {kind(value)}: it must be text", field=field)
    if "\x00" in value:
        raise NotAllowed(f"{field} contains a NUL character: remove it", field=field)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise NotAllowed(
                f"{field} contains half of a surrogate pair (\\ud800 to \\udfff): write the whole character",
                field=field,
            ) from None
    return value


def short(value: object, field: str, most: int = 255) -> str:
    """Text without blanks around it, of at most ``most`` characters."""
    found = text(value, field).strip()
    if len(found) > most:
        raise NotAllowed(f"{field} has {len(found)} characters: at most {most} are allowed", field=field)
    return found


def argument(value: object, field: str) -> str:
    """Text that becomes one argument of a process."""
    found = text(value, field)
    if len(found) * 4 > LONGEST_ARGUMENT and (size := len(found.encode())) > LONGEST_ARGUMENT:
        raise NotAllowed(
            f"{field} is {size} bytes long: a process takes at most {LONGEST_ARGUMENT}; "
            "put it in a file and name that in uris",
            field=field,
        )
    return found


def decimal(value: object, field: str) -> float | None:
    """A number, also in quotes; None when it is not used. May be infinite, never NaN."""
    if value is None or value is False or value == "":
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed(f"{field} is {kind(value)}: it must be a number", field=field)
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def whole(value: object, field: str) -> float | None:
    """A whole number (2 and 2.0 are the same); None when it is not used. May be infinite."""
    found = decimal(value, field)
    if found is not None and math.isfinite(found) and found != int(found):
        raise NotAllowed(f"{field} is {show(value)}: it must be a whole number", field=field)
    return found


def clamped(value: object, field: str, default: float, least: float, most: float) -> float:
    """A number moved into its range, as the original does; ``default`` when it is not used."""
    found = decimal(value, field)
    return default if found is None else min(max(found, least), most)


def flag(value: object, field: str, default: bool) -> bool:
    """true or false, also in quotes; ``default`` when absent."""
    if value is None or value == "":
        return default
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise Malformed(f"{field} is {kind(value)}: it must be true or false", field=field)


def port(value: object, field: str, least: int) -> int:
    """A port number from ``least`` to 65535; absent counts as 0."""
    found = whole(value, field) or 0
    if not least <= found <= 65535:
        raise NotAllowed(f"{field} is {show(value)}: it must be a port from {least} to 65535", field=field)
    return int(found)


def choice(value: object, field: str, choices: tuple[str, ...]) -> str:
    """One of ``choices`` in any case; the first one when it is blank or not used."""
    found = "" if unused(value) else text(value, field).strip()
    for known in choices:
        if found.upper() == known.upper():
            return known
    if not found:
        return choices[0]
    raise NotAllowed(f"{field} is {show(found)}: it must be one of {', '.join(choices)}", field=field)


def mapping(value: object, field: str) -> dict[str, object]:
    """An object; {} when it is not used."""
    if unused(value):
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"{field} is {kind(value)}: it must be an object", field=field)
    return value


def items(value: object, field: str, *, secret: bool = False) -> Iterator[tuple[str, object]]:
    """The items of a list, each with its name in messages (``args[0]``); none when it is not used."""
    if unused(value):
        return
    if not isinstance(value, list):
        raise Malformed(f"{field} is {kind(value, secret=secret)}: it must be a list", field=field)
    for index, item in enumerate(value):
        yield f"{field}[{index}]", item


def objects(value: object, field: str, *, secret: bool = False) -> Iterator[tuple[str, dict[str, object]]]:
    """The items of a list of objects, each with its name in messages. ``secret``: nothing is quoted."""
    for name, item in items(value, field, secret=secret):
        if not isinstance(item, dict):
            raise Malformed(f"{name} is {kind(item, secret=secret)}: it must be an object", field=name)
        yield name, item


def http_url(value: object, field: str) -> str:
    """An http or https URL; blank when absent. Where it leads is checked when it is used.

    Never quoted in a message: passwords and access keys stand in URLs.
    """
    found = short(value, field, LONGEST_URL)
    if not found:
        return ""
    try:
        parts = urlsplit(found)
        valid = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or _UNPRINTABLE.search(found):
        raise NotAllowed(f"{field} must be an http:// or https:// URL without blanks", field=field)
    return found


def callback_url(value: object, field: str) -> str:
    """As ``http_url``; one with a user name or password is refused: it is shown and kept as it is."""
    found = http_url(value, field)
    if found and "@" in urlsplit(found).netloc:
        raise NotAllowed(
            f"{field} has a user name or password in it: leave them out, every callback is signed "
            "(webhook-signature), and that is what the receiver should check",
            field=field,
        )
    return found


def required(found: str, field: str, fix: str) -> str:
    """``found``, or an error when it is blank."""
    if not found or found.isspace():
        raise Missing(f"{field} is missing or blank: {fix}", field=field)
    return found
