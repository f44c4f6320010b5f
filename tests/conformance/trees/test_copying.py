"""copy_here and copy_there: offered or not, the file is whole in the end."""

from __future__ import annotations

import pytest

from tests.conformance.trees.handling import MIB, begin, content, fill
from tests.conformance.trees.subjects import Subject
from workers.storage.trees.base import TransferOptions, Tree


@pytest.mark.parametrize("size", [0, 3 * MIB + 17])
@pytest.mark.parametrize("here", [True, False], ids=["here", "there"])
def test_within_a_site(tree: Tree, subject: Subject, folder: bytes, size: int, here: bool) -> None:
    data = content(size)
    subject.put(folder + b"/source #1", data)
    receiving = begin(tree, folder + b"/file #2", size)
    moved: list[int] = []
    if here:
        done = tree.copy_here(tree, folder + b"/source #1", receiving, moved.append, TransferOptions())
    else:
        done = tree.copy_there(folder + b"/source #1", tree, receiving, moved.append, TransferOptions())
    assert subject.get(folder + b"/file #2") is None
    if done:
        assert sum(moved) == size
        receiving.finish()
    else:
        assert not moved
        fill(receiving, data)
    receiving.commit(overwrite=False)
    receiving.close()
    assert subject.get(folder + b"/file #2") == data
    assert subject.get(folder + b"/source #1") == data
    assert subject.names(folder) == {b"file #2", b"source #1"}
