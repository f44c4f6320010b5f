"""receive and commit: a file appears whole under its name or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.trees.handling import MIB, begin, content, fails, fill, read, write
from tests.conformance.trees.subjects import Subject, where
from tests.support.waiting import wait_until
from workers.storage.trees.base import StorageFailed, Tree, Trouble
from workers.storage.trees.opening import open_tree


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 17])
def test_a_file_is_there_when_it_is_committed(tree: Tree, subject: Subject, folder: bytes, size: int) -> None:
    data = content(size)
    receiving = begin(tree, folder + b"/file", size)
    assert receiving.held == 0
    fill(receiving, data)
    assert subject.get(folder + b"/file") is None
    made = receiving.commit(overwrite=False)
    receiving.close()
    assert subject.get(folder + b"/file") == data
    assert subject.names(folder) == {b"file"}
    assert (made.name, made.size, made.is_file) == (b"file", size, True)
    assert made.version == tree.stat(folder + b"/file").version
    assert read(tree, folder + b"/file") == data


def test_a_large_piece_at_once(tree: Tree, subject: Subject, folder: bytes) -> None:
    data = content(5 * MIB + 1)
    receiving = begin(tree, folder + b"/file", len(data))
    receiving.send(data)
    receiving.finish()
    receiving.commit(overwrite=False)
    receiving.close()
    assert subject.get(folder + b"/file") == data


def test_what_is_there_is_not_replaced_without_being_told_so(
    tree: Tree, subject: Subject, folder: bytes
) -> None:
    subject.put(folder + b"/file", b"here before")
    receiving = begin(tree, folder + b"/file", 3)
    fill(receiving, b"new")
    with fails(Trouble.EXISTS, words="file"):
        receiving.commit(overwrite=False)
    assert subject.get(folder + b"/file") == b"here before"
    receiving.discard()
    receiving.close()
    assert subject.names(folder) == {b"file"}


def test_with_overwrite_it_is_replaced_at_once(tree: Tree, subject: Subject, folder: bytes) -> None:
    subject.put(folder + b"/file", b"here before")
    receiving = begin(tree, folder + b"/file", 3)
    fill(receiving, b"new")
    assert subject.get(folder + b"/file") == b"here before"
    receiving.commit(overwrite=True)
    receiving.close()
    assert subject.get(folder + b"/file") == b"new"
    assert subject.names(folder) == {b"file"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_a_folder_is_never_replaced(
    tree: Tree, subject: Subject, folder: bytes, overwrite: bool, full: bool
) -> None:
    subject.folder(folder + b"/here")
    if full:
        subject.put(folder + b"/here/inside", b"kept")
    receiving = begin(tree, folder + b"/here", 3)
    fill(receiving, b"new")
    with fails(Trouble.EXISTS, words="here"):
        receiving.commit(overwrite=overwrite)
    receiving.discard()
    receiving.close()
    assert subject.is_folder(folder + b"/here")
    assert subject.names(folder) == {b"here"}
    assert subject.names(folder + b"/here") == ({b"inside"} if full else set())


def test_what_is_discarded_leaves_nothing(tree: Tree, subject: Subject, folder: bytes) -> None:
    for size in (0, 5, 2 * MIB):
        receiving = begin(tree, folder + b"/file", size)
        fill(receiving, content(size))
        receiving.discard()
        receiving.discard()
        receiving.close()
        assert subject.names(folder) == set()
    receiving = begin(tree, folder + b"/file", MIB)
    receiving.send(content(1000))
    receiving.close()
    receiving.discard()
    assert subject.names(folder) == set()


@pytest.mark.parametrize("sent", [0, 4, 11])
def test_another_size_than_was_announced_is_never_whole(
    tree: Tree, subject: Subject, folder: bytes, sent: int
) -> None:
    receiving = begin(tree, folder + b"/file", 10)
    with fails(Trouble.DAMAGED, words="10"):
        fill(receiving, content(sent))
    receiving.discard()
    receiving.close()
    assert subject.names(folder) == set()


def test_without_its_folder_nothing_is_written(tree: Tree, subject: Subject, folder: bytes) -> None:
    if not tree.traits.folders:
        write(tree, folder + b"/none/file", b"content")
        assert subject.get(folder + b"/none/file") == b"content"
        return
    with fails(Trouble.MISSING):
        write(tree, folder + b"/none/file", b"content")
    assert subject.names(folder) == set()
    subject.put(folder + b"/file", b"x")
    with fails(Trouble.MISSING, Trouble.NOT_FOLDER):
        write(tree, folder + b"/file/below", b"content")


def test_parts_do_not_meet(tree: Tree, subject: Subject, folder: bytes) -> None:
    """Two files at once in one folder by names that begin alike for 240 bytes."""
    first, second = b"n" * 238 + b"-1", b"n" * 238 + b"-2"
    one, two = begin(tree, folder + b"/" + first, 3), begin(tree, folder + b"/" + second, 3)
    fill(one, b"one")
    fill(two, b"two")
    one.commit(overwrite=False)
    two.commit(overwrite=False)
    one.close()
    two.close()
    assert subject.names(folder) == {first, second}
    assert subject.get(folder + b"/" + first) == b"one"
    assert subject.get(folder + b"/" + second) == b"two"


def test_many_threads_at_once(tree: Tree, subject: Subject, folder: bytes) -> None:
    files = {b"/file-%d" % number: content(number * 50_000, number) for number in range(12)}
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda name: write(tree, folder + name, files[name]), files))
    assert subject.names(folder) == {name[1:] for name in files}
    assert {name: subject.get(folder + name) for name in files} == files


def _taken(tree: Tree, data: bytes) -> bool:
    """A server may hold what was removed for a moment, until it has closed it."""
    try:
        write(tree, b"/small", data)
    except StorageFailed as failed:
        if failed.trouble not in (Trouble.FULL, Trouble.AWAY):
            raise
        return False
    return True


@where(only=lambda found: found.fills)
def test_a_full_storage(subject: Subject) -> None:
    """Catches half a file under its name, a part that fills what is full, a tree that is of no use later."""
    data = content(8 * MIB)
    with subject.small(4) as reach:
        tree = open_tree(reach)
        try:
            receiving = begin(tree, b"/file", len(data))
            with fails(Trouble.FULL, *([] if subject.says_full else [Trouble.AWAY]), words="file"):
                fill(receiving, data)
                receiving.commit(overwrite=False)
            with fails(Trouble.MISSING):
                tree.stat(b"/file")
            receiving.discard()
            receiving.close()
            assert list(tree.scan(b"/")) == []
            wait_until(lambda: _taken(tree, data[:MIB]), why="there is space again")
            assert read(tree, b"/small") == data[:MIB]
        finally:
            tree.close()
