"""The order within one Priority: a hidden key, text that is compared byte by byte (COLLATE "C"). Pure.

Between any two keys there is another one, so an entry can be placed between any two neighbours for ever. A
key grows by a character in every few placements between the same two; ``LONGEST`` says when a group's keys
are dealt out anew (the order stays, nobody sees it).
"""

from __future__ import annotations

from typing import Final

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE: Final = len(_DIGITS)
#: Far below what an index of Postgres takes.
LONGEST: Final = 800
#: Of an entry that shares its Priority with nobody.
ALONE: Final = "V"


def between(left: str, right: str | None) -> str:
    """A key above ``left`` ("" = there is none) and below ``right`` (None = there is none).

    No key ends with the smallest digit, so there is always room in front of one.
    """
    if right is not None and left >= right:
        raise ValueError(f"{left!r} is not below {right!r}")
    key = ""
    position = 0
    while True:
        low = _DIGITS.index(left[position]) if position < len(left) else 0
        high = _DIGITS.index(right[position]) if right is not None and position < len(right) else _BASE
        if high - low > 1:
            return key + _DIGITS[(low + high) // 2 if right is not None or low < _BASE // 2 else low + 1]
        key += _DIGITS[low]
        if high > low:
            right = None  # from here on only the left one matters
        position += 1


def dealt(count: int) -> list[str]:
    """Short keys for a whole group, in order, with room between them."""
    width = 1
    while _BASE**width < 4 * (count + 1):
        width += 1
    step = _BASE**width // (count + 1)
    keys = []
    for number in range(1, count + 1):
        value, key = number * step, ""
        for _ in range(width):
            value, digit = divmod(value, _BASE)
            key = _DIGITS[digit] + key
        keys.append(key + ALONE)
    return keys
