"""Which images of a node came with credentials, and whose. No engine, no Django, no database."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from workers.vocabulary.references import Credentials


class Ledger:
    """A small file, kept over restarts."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def may_use(self, image_id: str, credentials: Credentials | None) -> bool:
        """May it be used without asking the registry?"""
        holders = self.holders(image_id)
        return holders is None or (credentials is not None and credentials.holder in holders)

    def holders(self, image_id: str) -> list[str] | None:
        """With whose credentials it came; None when anybody may have it."""
        return self._read().get(image_id)

    def came(self, image_id: str, credentials: Credentials | None) -> None:
        """The registry has given it to the holder of these credentials, or to somebody without any."""
        with self._locked():
            known = self._read()
            if credentials is None:
                changed = known.pop(image_id, None) is not None  # anybody may have it
            elif image_id in known:
                changed = credentials.holder not in known[image_id]
                known[image_id] = sorted({*known[image_id], credentials.holder})
            else:
                changed, known[image_id] = True, [credentials.holder]
            if changed:
                fresh = self._file.with_suffix(".new")
                fresh.write_text(json.dumps(known))
                fresh.replace(self._file)

    def _read(self) -> dict[str, list[str]]:
        try:
            return dict(json.loads(self._file.read_text()))
        except FileNotFoundError:
            return {}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(self._file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
