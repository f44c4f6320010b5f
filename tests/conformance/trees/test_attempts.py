"""Attempts that follow one another: a part is taken over first, so who was before makes nothing visible."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.conformance.trees.handling import MIB, TAG, begin, content, fails, fill
from tests.conformance.trees.subjects import Subject
from workers.storage.trees.base import Part, StorageFailed, Tree, Trouble


def _interrupted(tree: Tree, path: bytes, data: bytes, sent: int, *, attempt: int = 1) -> None:
    receiving = begin(tree, path, len(data), attempt=attempt)
    receiving.send(data[:sent])
    receiving.close()


def test_an_interrupted_file_is_resumed_where_the_storage_can(
    tree: Tree, subject: Subject, folder: bytes
) -> None:
    data = content(3 * MIB)
    _interrupted(tree, folder + b"/file", data, 2 * MIB)
    assert subject.get(folder + b"/file") is None
    again = begin(tree, folder + b"/file", len(data), attempt=2, before=1, resume=True)
    assert 0 <= again.held <= 2 * MIB
    if tree.traits.appends:
        assert again.held > 0
    fill(again, data)
    again.commit(overwrite=False)
    again.close()
    assert subject.get(folder + b"/file") == data
    assert subject.names(folder) == {b"file"}


def test_interrupted_twice(tree: Tree, subject: Subject, folder: bytes) -> None:
    data = content(3 * MIB)
    _interrupted(tree, folder + b"/file", data, MIB)
    again = begin(tree, folder + b"/file", len(data), attempt=2, before=1, resume=True)
    again.send(data[again.held : again.held + MIB])
    again.close()
    last = begin(tree, folder + b"/file", len(data), attempt=3, before=2, resume=True)
    fill(last, data)
    last.commit(overwrite=False)
    last.close()
    assert subject.get(folder + b"/file") == data
    assert subject.names(folder) == {b"file"}


def test_without_resume_it_begins_anew(tree: Tree, subject: Subject, folder: bytes) -> None:
    """The source has changed: nothing of the part may be in the file, although it is longer."""
    _interrupted(tree, folder + b"/file", content(3 * MIB, 1), 2 * MIB)
    data = content(MIB, 2)
    again = begin(tree, folder + b"/file", len(data), attempt=2, before=1)
    assert again.held == 0
    fill(again, data)
    again.commit(overwrite=False)
    again.close()
    assert subject.get(folder + b"/file") == data
    assert subject.names(folder) == {b"file"}


def test_a_part_that_is_longer_than_the_file_is_not_gone_on_with(
    tree: Tree, subject: Subject, folder: bytes
) -> None:
    _interrupted(tree, folder + b"/file", content(2 * MIB, 1), 2 * MIB)
    data = content(1000, 2)
    again = begin(tree, folder + b"/file", len(data), attempt=2, before=1, resume=True)
    assert again.held == 0
    fill(again, data)
    again.commit(overwrite=False)
    again.close()
    assert subject.get(folder + b"/file") == data
    assert subject.names(folder) == {b"file"}


@pytest.mark.parametrize("resume", [False, True])
def test_nothing_was_left_by_the_attempt_before(
    tree: Tree, subject: Subject, folder: bytes, resume: bool
) -> None:
    again = begin(tree, folder + b"/file", 3, attempt=4, before=2, resume=resume)
    assert again.held == 0
    fill(again, b"new")
    again.commit(overwrite=False)
    again.close()
    assert subject.get(folder + b"/file") == b"new"
    assert subject.names(folder) == {b"file"}


def test_the_same_attempt_once_more(tree: Tree, subject: Subject, folder: bytes) -> None:
    """It has begun, failed, and begins again within the same attempt: by another endpoint, say."""
    _interrupted(tree, folder + b"/file", content(2 * MIB, 1), MIB)
    data = content(1000, 2)
    again = begin(tree, folder + b"/file", len(data))
    fill(again, data)
    again.commit(overwrite=False)
    again.close()
    assert subject.get(folder + b"/file") == data
    assert subject.names(folder) == {b"file"}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_at_once_the_older_one_makes_nothing_visible(
    tree: Tree, subject: Subject, folder: bytes, resume: bool, overwrite: bool
) -> None:
    old, new = content(MIB, 1), content(MIB, 1 if resume else 2)
    if overwrite:
        subject.put(folder + b"/file", b"here before")
    first = begin(tree, folder + b"/file", MIB)
    fill(first, old)
    second = begin(tree, folder + b"/file", MIB, attempt=2, before=1, resume=resume)
    with pytest.raises(StorageFailed):
        first.commit(overwrite=overwrite)
    assert subject.get(folder + b"/file") == (b"here before" if overwrite else None)
    first.discard()
    first.close()
    fill(second, new)
    second.commit(overwrite=overwrite)
    second.close()
    assert subject.get(folder + b"/file") == new
    assert subject.names(folder) == {b"file"}


def test_an_older_one_that_still_writes_does_not_get_into_the_file(
    tree: Tree, subject: Subject, folder: bytes
) -> None:
    old, new = content(2 * MIB, 1), content(2 * MIB, 2)
    first = begin(tree, folder + b"/file", len(old))
    first.send(old[:MIB])
    if subject.locks:
        with fails(Trouble.AWAY, words="file"):
            begin(tree, folder + b"/file", len(new), attempt=2, before=1)
        first.close()
    second = begin(tree, folder + b"/file", len(new), attempt=2, before=1)
    second.send(new[:MIB])
    with suppress(StorageFailed):
        first.send(old[MIB:])
        first.finish()
        first.commit(overwrite=True)
    first.close()
    assert subject.get(folder + b"/file") != old
    second.send(new[MIB:])
    second.finish()
    second.commit(overwrite=True)
    second.close()
    assert subject.get(folder + b"/file") == new
    tree.discard(folder + b"/file", Part(TAG, 2, before=1))
    assert subject.names(folder) == {b"file"}


def test_a_commit_of_which_nobody_has_heard(tree: Tree, subject: Subject, folder: bytes) -> None:
    """The file is there, and the next attempt does not know: it finds no part and does no harm."""
    first = begin(tree, folder + b"/file", 3)
    fill(first, b"new")
    made = first.commit(overwrite=False)
    first.close()
    assert tree.stat(folder + b"/file").size == made.size == 3
    again = begin(tree, folder + b"/file", 3, attempt=2, before=1, resume=True)
    assert again.held == 0
    again.discard()
    again.close()
    tree.discard(folder + b"/file", Part(TAG, 2, before=1))
    assert subject.get(folder + b"/file") == b"new"
    assert subject.names(folder) == {b"file"}


def test_committed_once_more_it_is_refused(tree: Tree, subject: Subject, folder: bytes) -> None:
    receiving = begin(tree, folder + b"/file", 3)
    fill(receiving, b"new")
    receiving.commit(overwrite=False)
    with fails(Trouble.EXISTS, Trouble.CHANGED, words="file"):
        receiving.commit(overwrite=False)
    receiving.discard()
    receiving.close()
    assert subject.get(folder + b"/file") == b"new"


def test_sweeping_removes_parts_of_that_element_only(tree: Tree, subject: Subject, folder: bytes) -> None:
    _interrupted(tree, folder + b"/file", content(MIB), 1000)
    _interrupted(tree, folder + b"/file", content(MIB), 1000, attempt=2)
    other = tree.receive(folder + b"/other", Part("gantry-7-4", 1), 3)
    fill(other, b"new")
    tree.discard(folder + b"/file", Part(TAG, 2, before=1))
    tree.discard(folder + b"/file", Part(TAG, 2, before=1))
    tree.discard(folder + b"/none/file", Part(TAG, 1))
    other.commit(overwrite=False)
    other.close()
    assert subject.names(folder) == {b"other"}
