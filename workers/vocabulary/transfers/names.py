"""Names that are no UTF-8, in JSON: each such byte is written \\xNN, a backslash doubled (contract page 40).

A name that is UTF-8 is itself, backslashes included; "escaped" beside it tells which of the two it is. Pure.
"""

from __future__ import annotations

import re
from typing import Final

_ESCAPE: Final = re.compile(rb"\\\\|\\x([0-9a-fA-F]{2})")


def name_to_wire(name: bytes) -> tuple[str, bool]:
    """(text, escaped). Only a name that is no UTF-8 is escaped; else a backslash is itself."""
    try:
        return name.decode(), False
    except UnicodeDecodeError:
        return escape(name), True


def escape(name: bytes) -> str:
    """The escaped form, whatever the name is."""
    text = name.replace(b"\\", b"\\\\").decode("utf-8", "surrogateescape")
    return "".join(f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)


def name_from_wire(text: str, escaped: bool) -> bytes:
    """The bytes of a name. Raises ValueError for an escape that is none."""
    raw = text.encode()
    if not escaped:
        return raw
    out = _ESCAPE.sub(lambda found: b"\\" if found[1] is None else bytes([int(found[1], 16)]), raw)
    if b"\\" in _ESCAPE.sub(b"", raw):
        raise ValueError(f"{text!r} has a backslash that is neither doubled nor the begin of \\xNN")
    return out
