"""What the tests of trees do again and again: write a file, read it, see a refusal."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conformance.trees.subjects import SECRET
from workers.storage.trees.base import Entry, Part, Receiving, StorageFailed, Tree, Trouble

TAG = "gantry-7-3"
MIB = 1 << 20


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that differ from place to place, the same for the same numbers."""
    return random.Random(seed).randbytes(size)


def read(tree: Tree, path: bytes, **more: Any) -> bytes:
    with tree.read(path, **more) as pieces:
        return b"".join(pieces)


def begin(tree: Tree, path: bytes, size: int, *, attempt: int = 1, **more: Any) -> Receiving:
    return tree.receive(path, Part(TAG, attempt, **more), size)


def fill(receiving: Receiving, data: bytes) -> None:
    """What is not there yet, in pieces of odd sizes, and the end."""
    for at in range(receiving.held, len(data), 200_003):
        receiving.send(data[at : at + 200_003])
    receiving.finish()


def write(tree: Tree, path: bytes, data: bytes, *, overwrite: bool = False, **more: Any) -> Entry:
    """The whole way of a file."""
    receiving = begin(tree, path, len(data))
    try:
        fill(receiving, data)
        return receiving.commit(overwrite=overwrite, **more)
    finally:
        receiving.close()


@contextmanager
def fails(*troubles: Trouble, words: str = "") -> Iterator[None]:
    """It ends with one of these troubles, and a sentence with these words and no secret."""
    with pytest.raises(StorageFailed) as caught:
        yield
    assert caught.value.trouble in troubles, (caught.value.trouble, caught.value.message)
    assert words in caught.value.message
    assert len(caught.value.message) > len("failed: 4")
    assert SECRET not in caught.value.message
