"""Swift keeps the protocol of a storage: what is read, what is stored, and what is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.swift import Swift, upload_of
from workers.storage.base import StorageFailed, Trouble
from workers.storage.swift import SwiftStorage, check

MIB = 1 << 20


def read(storage: SwiftStorage, path: str, **more: object) -> bytes:
    with storage.read(path, **more) as pieces:  # type: ignore[arg-type]
        return b"".join(pieces)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def filled(file: Path, size: int) -> bytes:
    content = os.urandom(size)
    file.write_bytes(content)
    return content


def test_replaced_by_larger_and_smaller_ones(swift: Swift, file: Path) -> None:
    """Catches an old content, a part of one, and segments that nobody removes."""
    container, storage = swift.container(), swift.storage()
    for number, size in enumerate((2 * MIB, 3 * MIB, 3 * MIB + 1, MIB, MIB + 1, 0, 5)):
        content = filled(file, size)
        stat = storage.store(f"{container}/a b", upload_of(file, f"run-{number}"))
        assert swift.get(f"{container}/a%20b") == content
        assert read(storage, f"{container}/a b") == content
        assert (stat.size, stat.mark) == (size, f"run-{number}")
        segments = -(-size // MIB) if size > MIB else 0
        assert len(swift.names(f"{container}_segments")) == segments
    assert storage.stat(f"{container}/a b") == stat
    storage.close()


def test_check_tells_what_is_wrong(swift: Swift) -> None:
    """Catches credentials that are found to be bad when the run has ended."""
    container = swift.container()
    check(swift.store())
    check(swift.store(user="test:tester", tenant=""), container)
    for other in ({"key": "wrong-key"}, {"tenant": "other2"}, {"user": "nobody"}):
        with pytest.raises(StorageFailed) as caught:
            check(swift.store(**other))
        assert caught.value.trouble is Trouble.DENIED
        assert "wrong-key" not in caught.value.message
    with pytest.raises(StorageFailed, match="container nowhere") as caught:
        check(swift.store(), "nowhere")
    assert caught.value.trouble is Trouble.MISSING
