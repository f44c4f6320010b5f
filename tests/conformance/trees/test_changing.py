"""mkdir, remove, remove_folder and rename, with what they refuse."""

from __future__ import annotations

import pytest

from tests.conformance.trees.handling import fails, read, write
from tests.conformance.trees.subjects import Subject
from workers.storage.trees.base import StorageFailed, Tree, Trouble


def test_mkdir(tree: Tree, subject: Subject, folder: bytes) -> None:
    tree.mkdir(folder + b"/made")
    assert subject.is_folder(folder + b"/made")
    assert tree.stat(folder + b"/made").is_folder
    assert [entry.is_folder for entry in tree.scan(folder)] == [True]
    assert list(tree.scan(folder + b"/made")) == []
    with fails(Trouble.EXISTS, words="made"):
        tree.mkdir(folder + b"/made")
    subject.put(folder + b"/file", b"x")
    with fails(Trouble.EXISTS, words="file"):
        tree.mkdir(folder + b"/file")
    write(tree, folder + b"/made/file", b"content")
    assert subject.names(folder + b"/made") == {b"file"}
    if tree.traits.folders:
        with fails(Trouble.MISSING):
            tree.mkdir(folder + b"/none/made")


def test_remove(tree: Tree, subject: Subject, folder: bytes) -> None:
    subject.put(folder + b"/file", b"x")
    subject.folder(folder + b"/inner")
    subject.put(folder + b"/inner/file", b"x")
    tree.remove(folder + b"/file")
    assert subject.names(folder) == {b"inner"}
    with fails(Trouble.MISSING, words="file"):
        tree.remove(folder + b"/file")
    with fails(Trouble.IS_FOLDER, words="inner"):
        tree.remove(folder + b"/inner")
    assert subject.names(folder + b"/inner") == {b"file"}


def test_remove_folder(tree: Tree, subject: Subject, folder: bytes) -> None:
    tree.mkdir(folder + b"/made")
    subject.put(folder + b"/made/file", b"x")
    with fails(Trouble.NOT_EMPTY, words="made"):
        tree.remove_folder(folder + b"/made")
    assert subject.get(folder + b"/made/file") == b"x"
    tree.remove(folder + b"/made/file")
    tree.remove_folder(folder + b"/made")
    assert subject.names(folder) == set()
    with fails(Trouble.MISSING, words="made"):
        tree.remove_folder(folder + b"/made")
    subject.put(folder + b"/file", b"x")
    with fails(Trouble.NOT_FOLDER, Trouble.MISSING, words="file"):
        tree.remove_folder(folder + b"/file")
    assert subject.get(folder + b"/file") == b"x"


def test_nothing_is_done_to_the_site_itself(tree: Tree, subject: Subject, folder: bytes) -> None:
    for path in (b"/", b"//", folder + b"/.."):
        with pytest.raises(StorageFailed):
            tree.remove(path)
        with pytest.raises(StorageFailed):
            tree.remove_folder(path)
        with pytest.raises(StorageFailed):
            tree.rename(path, folder + b"/site")
        with pytest.raises(StorageFailed):
            tree.mkdir(path)
        with pytest.raises(StorageFailed):
            write(tree, path, b"content")
    assert subject.is_folder(folder)
    assert subject.names(folder) == set()


def test_a_file_is_renamed(tree: Tree, subject: Subject, folder: bytes) -> None:
    subject.folder(folder + b"/inner")
    subject.put(folder + b"/file", b"content")
    tree.rename(folder + b"/file", folder + b"/inner/new")
    assert subject.names(folder) == {b"inner"}
    assert read(tree, folder + b"/inner/new") == b"content"
    with fails(Trouble.MISSING, words="file"):
        tree.rename(folder + b"/file", folder + b"/other")
    if tree.traits.folders:
        with fails(Trouble.MISSING):
            tree.rename(folder + b"/inner/new", folder + b"/none/new")
    assert subject.get(folder + b"/inner/new") == b"content"


def test_a_rename_replaces_a_file_only_when_told_so(tree: Tree, subject: Subject, folder: bytes) -> None:
    subject.put(folder + b"/file", b"content")
    subject.put(folder + b"/other", b"here before")
    with fails(Trouble.EXISTS, words="other"):
        tree.rename(folder + b"/file", folder + b"/other")
    assert subject.get(folder + b"/other") == b"here before"
    assert subject.get(folder + b"/file") == b"content"
    tree.rename(folder + b"/file", folder + b"/other", overwrite=True)
    assert subject.names(folder) == {b"other"}
    assert subject.get(folder + b"/other") == b"content"


def test_a_folder_is_renamed_with_all_that_is_in_it(tree: Tree, subject: Subject, folder: bytes) -> None:
    subject.folder(folder + b"/from/inner")
    subject.folder(folder + b"/from/empty")
    subject.put(folder + b"/from/inner/file", b"content")
    tree.rename(folder + b"/from", folder + b"/to")
    assert subject.names(folder) == {b"to"}
    assert {entry.name for entry in tree.scan(folder + b"/to")} == {b"inner", b"empty"}
    assert subject.is_folder(folder + b"/to/empty")
    assert subject.get(folder + b"/to/inner/file") == b"content"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_rename_never_replaces_a_folder(
    tree: Tree, subject: Subject, folder: bytes, overwrite: bool
) -> None:
    subject.folder(folder + b"/one")
    subject.put(folder + b"/one/file", b"content")
    subject.folder(folder + b"/empty")
    subject.put(folder + b"/file", b"content")
    for source, target in ((b"/file", b"/empty"), (b"/one", b"/empty"), (b"/one", b"/file")):
        with fails(Trouble.EXISTS, words=target.decode()):
            tree.rename(folder + source, folder + target, overwrite=overwrite)
    with pytest.raises(StorageFailed):
        tree.rename(folder + b"/one", folder + b"/one/inner", overwrite=overwrite)
    assert subject.names(folder) == {b"one", b"empty", b"file"}
    assert subject.names(folder + b"/one") == {b"file"}
    assert subject.names(folder + b"/empty") == set()
    assert subject.get(folder + b"/file") == b"content"
