"""read: the content from an offset on, of the version that was asked for."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.trees.handling import MIB, content, fails, read
from tests.conformance.trees.subjects import Subject, where
from workers.storage.trees.base import Tree, Trouble


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, 3 * MIB + 17])
def test_the_whole_content_in_pieces(tree: Tree, subject: Subject, folder: bytes, size: int) -> None:
    data = content(size)
    subject.put(folder + b"/file", data)
    with tree.read(folder + b"/file") as pieces:
        found = list(pieces)
    assert b"".join(found) == data
    assert max(map(len, found), default=0) <= MIB
    assert all(found), "an empty piece"


def test_from_an_offset_on(tree: Tree, subject: Subject, folder: bytes) -> None:
    data = content(2 * MIB + 5)
    subject.put(folder + b"/file", data)
    for offset in (1, 4096, MIB, MIB + 7, len(data) - 1, len(data)):
        assert read(tree, folder + b"/file", offset=offset) == data[offset:]


def test_who_stops_early_leaves_nothing_behind(tree: Tree, subject: Subject, folder: bytes) -> None:
    data = content(4 * MIB)
    subject.put(folder + b"/file", data)
    for _ in range(6):  # more than there are connections
        with tree.read(folder + b"/file") as pieces:
            assert data.startswith(b"".join(itertools.islice(pieces, 1)))
    assert read(tree, folder + b"/file") == data


def test_the_version_that_was_asked_for(tree: Tree, subject: Subject, folder: bytes) -> None:
    subject.put(folder + b"/file", b"one way", mtime=1_600_000_000)
    version = tree.stat(folder + b"/file").version
    assert read(tree, folder + b"/file", version=version) == b"one way"
    assert read(tree, folder + b"/file", version=version, offset=4) == b"way"


@where(only=lambda found: found.versions)
def test_another_version_is_refused(tree: Tree, subject: Subject, folder: bytes) -> None:
    subject.put(folder + b"/file", b"one way", mtime=1_600_000_000)
    version = tree.stat(folder + b"/file").version
    subject.put(folder + b"/file", b"another", mtime=1_600_000_005)
    with fails(Trouble.CHANGED, words="file"):
        read(tree, folder + b"/file", version=version)
    with fails(Trouble.CHANGED, words="file"):
        read(tree, folder + b"/file", version=version, offset=4)


def test_what_cannot_be_read(tree: Tree, folder: bytes) -> None:
    with fails(Trouble.MISSING, words="nothing"):
        read(tree, folder + b"/nothing")
    with fails(Trouble.IS_FOLDER, Trouble.MISSING):  # a store of objects knows no folder to read
        read(tree, folder)


def test_many_threads_at_once(tree: Tree, subject: Subject, folder: bytes) -> None:
    files = {b"/file-%d" % number: content(300_000, number) for number in range(12)}
    for name, data in files.items():
        subject.put(folder + name, data)
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda name: read(tree, folder + name), files))
    assert found == list(files.values())
