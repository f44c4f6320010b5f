"""S3's uploads of many parts: what every tree must hold, with files that are larger than one part."""

from __future__ import annotations

import pytest

from tests.conformance.trees.handling import MIB, TAG, begin, content, fails, fill, read
from tests.conformance.trees.subjects import Subject, where
from tests.support.proxy import Proxy
from workers.storage.trees.base import Part, TransferOptions, Tree, Trouble
from workers.storage.trees.opening import open_tree
from workers.storage.trees.s3.writing import PART
from workers.vocabulary.transfers.reach import Protocol

pytestmark = where(only=lambda found: found.protocol is Protocol.S3)
_SIZE = 2 * PART + 1000


def _begun(tree: Tree, path: bytes, data: bytes, sent: int) -> None:
    receiving = begin(tree, path, len(data))
    receiving.send(data[:sent])
    receiving.close()


def test_a_file_of_many_parts(tree: Tree, subject: Subject, folder: bytes) -> None:
    data = content(_SIZE)
    receiving = begin(tree, folder + b"/file", len(data))
    fill(receiving, data)
    assert subject.get(folder + b"/file") is None
    made = receiving.commit(overwrite=False)
    receiving.close()
    assert made.version == tree.stat(folder + b"/file").version
    assert read(tree, folder + b"/file") == data
    assert subject.names(folder) == {b"file"}
    assert tree.checksum(folder + b"/file", "md5") == ""


def test_it_goes_on_after_the_parts_that_are_there(tree: Tree, subject: Subject, folder: bytes) -> None:
    data = content(_SIZE)
    _begun(tree, folder + b"/file", data, 2 * PART)
    again = begin(tree, folder + b"/file", len(data), attempt=2, before=1, resume=True)
    assert again.held in (PART, 2 * PART)  # one may have been on its way when it ended
    fill(again, data)
    again.commit(overwrite=False)
    again.close()
    assert subject.get(folder + b"/file") == data
    assert subject.names(folder) == {b"file"}


@pytest.mark.parametrize("resume", [False, True])
def test_the_older_of_two_makes_nothing_visible(
    tree: Tree, subject: Subject, folder: bytes, resume: bool
) -> None:
    data = content(_SIZE)
    first = begin(tree, folder + b"/file", len(data))
    fill(first, data)
    second = begin(tree, folder + b"/file", len(data), attempt=2, before=1, resume=resume)
    with fails(Trouble.CHANGED, words="file"):
        first.commit(overwrite=True)
    first.discard()
    first.close()
    assert subject.get(folder + b"/file") is None
    assert second.held == (2 * PART if resume else 0)
    fill(second, data)
    second.commit(overwrite=False)
    second.close()
    assert subject.get(folder + b"/file") == data
    assert subject.names(folder) == {b"file"}


def test_what_is_discarded_leaves_no_upload(tree: Tree, subject: Subject, folder: bytes) -> None:
    data = content(_SIZE)
    _begun(tree, folder + b"/file", data, 2 * PART)
    assert len(subject.names(folder)) == 2  # the upload, and the mark that leads to it
    tree.discard(folder + b"/file", Part(TAG, 1))
    assert subject.names(folder) == set()
    _begun(tree, folder + b"/file", data, 2 * PART)
    _begun(tree, folder + b"/file", data, 2 * PART)  # the same attempt once more
    tree.discard(folder + b"/file", Part(TAG, 2, before=1))
    assert subject.names(folder) == set()


def test_a_bit_that_is_turned_over_on_the_way(tree: Tree, subject: Subject, folder: bytes) -> None:
    reach = subject.reach()
    with Proxy((reach.host, reach.port)) as proxy:
        other = open_tree(type(reach).from_json({**reach.to_json(), "port": proxy.port}))
        try:
            for size in (MIB, _SIZE):
                receiving = begin(other, folder + b"/file", size)
                proxy.flip(size // 2, outward=True)
                with fails(Trouble.DAMAGED, words="file"):
                    fill(receiving, content(size))
                    receiving.commit(overwrite=False)
                receiving.discard()
                receiving.close()
        finally:
            other.close()
    assert subject.names(folder) == set()


def test_a_large_file_is_copied_by_the_server(
    tree: Tree, subject: Subject, folder: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.storage.trees.s3.writing._COPY_AT_ONCE", MIB)
    monkeypatch.setattr("workers.storage.trees.s3.writing._COPY_PART", 6 * MIB)
    data = content(_SIZE)
    subject.put(folder + b"/source", data)
    receiving = begin(tree, folder + b"/file", len(data))
    moved: list[int] = []
    assert tree.copy_here(tree, folder + b"/source", receiving, moved.append, TransferOptions())
    assert (sum(moved), len(moved)) == (len(data), 3)
    receiving.finish()
    receiving.commit(overwrite=False)
    receiving.close()
    assert subject.get(folder + b"/file") == data
    assert subject.names(folder) == {b"file", b"source"}


def test_words_that_no_path_can_have_are_told_as_special(tree: Tree, subject: Subject, folder: bytes) -> None:
    subject.bucket.put(f"site{folder.decode()}//file", b"x")  # type: ignore[attr-defined]
    subject.bucket.put(f"site{folder.decode()}/../file", b"x")  # type: ignore[attr-defined]
    found = list(tree.scan(folder))
    assert len(found) == 2
    assert not any(entry.is_file or entry.is_folder or entry.is_link for entry in found)
