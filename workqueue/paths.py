"""What the paths of jobs and sites may be. Pure; nothing here knows a storage.

Paths begin with ``/`` (below the site's root) or ``~``, or are relative (both below the site's default path).
Any name that a storage allows is allowed: no shell ever sees one. Source: contract page 40.
"""

from __future__ import annotations

from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.transfers.names import name_from_wire


def checked(path: str, field: str, *, escaped: bool = False) -> str:
    """``path`` as it is. InvalidInput: NUL, an escape that is none, or ``..`` that leads out of the place
    where the path begins."""
    depth = 0
    for name in _names(path, field, escaped):
        depth += -1 if name == b".." else 1
        if depth < 0:
            raise InvalidInput(
                f"{field} leads out of its site by '..': name what lies below the site's root", field=field
            )
    return path


def is_root(path: str, default_path: str, *, escaped: bool = False) -> bool:
    """Does it name the root of its site, or the place where relative paths begin?"""
    names = _clean(_names(path, "path", escaped))
    return not names or (path.startswith("/") and names == _clean(_names(default_path, "path", False)))


def _names(path: str, field: str, escaped: bool) -> list[bytes]:
    """The components that count, without the ``~`` at the begin."""
    try:
        raw = name_from_wire(path, escaped)
    except ValueError as error:
        raise InvalidInput(f"{field}: {error}", field=field) from None
    if b"\x00" in raw:
        raise InvalidInput(f"{field} has the character NUL in it, which no name can have", field=field)
    names = [name for name in raw.split(b"/") if name not in (b"", b".")]
    if names and names[0] == b"~" and raw.startswith(b"~"):
        del names[0]
    return names


def _clean(names: list[bytes]) -> list[bytes]:
    found: list[bytes] = []
    for name in names:
        if name == b"..":
            del found[-1:]
        else:
            found.append(name)
    return found
