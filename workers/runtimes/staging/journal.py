"""What an attempt's staging has done, in a file of its control folder: whoever adopts it goes on from there.

An input is noted right before its file gets its name, and counts when there is a file of that name and size;
an output right after it became visible, and the mark of the object tells what lies between the two. Standard
library only.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from pathlib import Path
from typing import Any


class Journal:
    """One attempt's. Used by one thread at a time. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "staging"
        self._told: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            self._told = json.loads(self._path.read_text())

    def fetched(self, path: str) -> int | None:
        """The size of an input that was fetched whole; None when it was not."""
        size: int | None = self._told.get("fetched", {}).get(path)
        return size

    def note_fetched(self, path: str, size: int) -> None:
        self._told.setdefault("fetched", {})[path] = size
        self._write()

    def stored(self, number: int) -> int | None:
        """The size of an output that was stored whole; None when it was not."""
        size: int | None = self._told.get("stored", {}).get(str(number))
        return size

    def note_stored(self, number: int, size: int) -> None:
        self._told.setdefault("stored", {})[str(number)] = size
        self._write()

    def token(self) -> str:
        """Names this attempt's uploads for good; no other attempt ever had it, whatever is restored."""
        if "token" not in self._told:
            self._told["token"] = secrets.token_hex(8)
            self._write()
        return str(self._told["token"])

    def _write(self) -> None:
        new = self._path.with_name("staging.new")
        new.write_text(json.dumps(self._told))
        new.replace(self._path)
