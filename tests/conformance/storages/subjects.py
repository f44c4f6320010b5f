"""What the tests of storages share: files, uploads, and how a refusal looks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.swift import Swift
from tests.support.waiting import wait_until
from workers.storage.base import Stat, Storage, StorageFailed, Trouble, Upload
from workers.storage.swift import SwiftStorage

MIB = 1 << 20


@dataclass
class Source:
    """A file that is uploaded, and what was told about it."""

    path: Path
    moved: list[int] = field(default_factory=list)
    commits: int = 0

    def fill(self, size: int) -> bytes:
        """New random content."""
        content = os.urandom(size)
        self.path.write_bytes(content)
        return content

    def store(self, storage: Storage, path: str, mark: str = "run-1", **more: Any) -> Stat:
        """Upload what it has now."""
        self.moved.clear()

        def commit() -> None:
            self.commits += 1

        with self.path.open("rb") as file:
            size = self.path.stat().st_size
            given = {"moved": self.moved.append, "commit": commit, **more}
            return storage.store(path, Upload(file.fileno(), size, mark, **given))


def read(storage: Storage, path: str, **more: Any) -> bytes:
    """All of it."""
    with storage.read(path, **more) as pieces:
        return b"".join(pieces)


@contextmanager
def fails(trouble: Trouble, words: str = "") -> Iterator[None]:
    """It ends with this trouble, and the message has the words and no key."""
    with pytest.raises(StorageFailed) as caught:
        yield
    assert caught.value.trouble is trouble, caught.value.message
    assert words in caught.value.message
    assert "testing" not in caught.value.message


def expired(swift: Swift, storage: SwiftStorage) -> None:
    """Wait until the storage's token is no good any more."""
    access = storage._connection._account._access
    assert access is not None
    path = access.url.removeprefix(swift.url)
    headers = {"X-Auth-Token": access.token}
    wait_until(lambda: swift.ask("HEAD", path, headers=headers).status_code == 401, why="the token expires")
