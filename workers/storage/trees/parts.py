"""Names of files that are not whole yet: beside the target, and known again by whoever goes on.

``.`` + the target's name, cut to fit + ``.`` + a hash of the whole name + ``.`` + tag + ``.`` + attempt +
``.part``.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

#: Most bytes of a name: that of most file systems.
NAME_MAX: Final = 255
_OURS: Final = re.compile(
    rb"^\..*\.[0-9a-f]{8}\.(?P<tag>[A-Za-z0-9_-]+)\.(?P<attempt>[0-9]+)\.part$", re.DOTALL
)


def part_name(name: bytes, tag: str, attempt: int, limit: int = NAME_MAX) -> bytes:
    """The part's name for the target ``name`` (last component). UTF-8 is cut between characters."""
    end = f".{hashlib.sha256(name).hexdigest()[:8]}.{tag}.{attempt}.part".encode()
    head = name[: max(0, limit - 1 - len(end))]
    if len(head) < len(name):
        while head and (head[-1] & 0xC0) == 0x80:  # in the middle of a character
            head = head[:-1]
        if head and head[-1] >= 0xC0:
            head = head[:-1]
    return b"." + head + end


def part_path(path: bytes, tag: str, attempt: int) -> bytes:
    """The part beside the target ``path``."""
    folder, _, name = path.rpartition(b"/")
    return folder + b"/" + part_name(name, tag, attempt)


def is_part(name: bytes, installation: str = "") -> bool:
    """Is it a part of ours (of this installation: tags begin with its name)?"""
    found = _OURS.match(name)
    return found is not None and found["tag"].startswith(installation.encode())
