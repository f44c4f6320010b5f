"""Names of objects and of the segments that belong to one. Pure.

Segments of `reads/a.fa` that the upload with mark `run-7` made: container `reads_segments`, objects
`a.fa/.gantry/run-7/00000000` and on. No other tool makes such names, so whatever has one is ours to remove:
what others keep in a container of that name is left alone.
"""

from __future__ import annotations

import re
from typing import Final

from workers.storage.base import StorageFailed, Trouble

#: What `swift upload` and most others append to a container's name, too.
SUFFIX: Final = "_segments"
_OURS: Final = "/.gantry/"
_NUMBERED: Final = re.compile(r"([A-Za-z0-9._-]+)/([0-9]{8})")


def split(path: str) -> tuple[str, str]:
    """``container/object`` as container and object. StorageFailed when one of them is missing."""
    container, _, name = path.partition("/")
    if not container or not name:
        raise StorageFailed(f"{path!r} names no object: write container/object", Trouble.OTHER)
    try:
        path.encode()
    except UnicodeEncodeError:
        raise StorageFailed(f"{path!r} is not a name: it is no Unicode text", Trouble.OTHER) from None
    return container, name


def segments_of(container: str) -> str:
    """The container with the segments of the objects in a container."""
    return container + SUFFIX


def folder(name: str, mark: str) -> str:
    """How the names of an upload's segments begin; a mark's beginning gives those of several uploads."""
    return f"{name}{_OURS}{mark}"


def segment(name: str, mark: str, number: int) -> str:
    """Name of one segment, counted from 0."""
    return f"{folder(name, mark)}/{number:08d}"


def mark_of(name: str, found: str) -> str | None:
    """The mark of the upload that made the segment ``found`` for the object ``name``; None if it is none."""
    prefix = name + _OURS
    match = _NUMBERED.fullmatch(found.removeprefix(prefix)) if found.startswith(prefix) else None
    return match[1] if match else None
