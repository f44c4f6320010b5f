"""An image of the node, as what makes containers sees it. Pure: no engine, no Django."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Image:
    """An image that is on the node. ``id`` is what runs, ``digest`` what it is called in its registry (or the
    id), ``note`` something a person should know about how it was got."""

    id: str
    digest: str
    user: str = ""
    working_dir: str = ""
    has_command: bool = True
    note: str = ""
