"""stat and scan: what is there, told as it is."""

from __future__ import annotations

import itertools

from tests.conformance.trees.handling import content, fails
from tests.conformance.trees.subjects import Subject, where
from workers.storage.trees.base import Tree, Trouble

_LINKS = where(only=lambda found: found.links)


def test_what_is_missing(tree: Tree, subject: Subject, folder: bytes) -> None:
    with fails(Trouble.MISSING, words="nothing here"):
        tree.stat(folder + b"/nothing here")
    with fails(Trouble.MISSING):
        tree.stat(folder + b"/nothing/below")
    with fails(Trouble.MISSING, words="nothing here"):
        list(tree.scan(folder + b"/nothing here"))
    subject.put(folder + b"/file", b"x")
    with fails(Trouble.MISSING):
        tree.stat(folder + b"/file/below")


def test_a_file_and_a_folder(tree: Tree, subject: Subject, folder: bytes) -> None:
    subject.put(folder + b"/file", content(1234), mtime=1_600_000_000)
    subject.folder(folder + b"/inner")
    found = tree.stat(folder + b"/file")
    assert (found.name, found.size, found.is_file, found.is_folder) == (b"file", 1234, True, False)
    assert found.version
    if tree.traits.times:
        assert found.mtime_ns // 10**9 == 1_600_000_000
    inner = tree.stat(folder + b"/inner")
    assert (inner.name, inner.is_file, inner.is_folder) == (b"inner", False, True)
    told = {entry.name: entry for entry in tree.scan(folder)}
    assert set(told) == {b"file", b"inner"}
    assert told[b"file"].is_file
    assert told[b"file"].size == 1234
    assert told[b"inner"].is_folder
    assert list(tree.scan(folder + b"/inner")) == []
    with fails(Trouble.NOT_FOLDER, words="file"):
        list(tree.scan(folder + b"/file"))


def test_the_site_itself_is_a_folder(tree: Tree, folder: bytes) -> None:
    assert tree.stat(b"/").is_folder
    assert folder[1:] in {entry.name for entry in tree.scan(b"/")}
    assert tree.home().startswith(b"/")


def test_the_version_changes_with_the_content(tree: Tree, subject: Subject, folder: bytes) -> None:
    path = folder + b"/file"
    subject.put(path, b"one way", mtime=1_600_000_000)
    first = tree.stat(path).version
    assert tree.stat(path).version == first
    subject.put(path, b"another", mtime=1_600_000_005)  # of the same size
    second = tree.stat(path).version
    assert second != first
    subject.put(path, b"a longer one", mtime=1_600_000_005)
    assert tree.stat(path).version not in (first, second)


def test_a_large_folder_is_told_as_it_comes(tree: Tree, subject: Subject, folder: bytes) -> None:
    """Every name once, however many pages there are; and who looks at the first few only frees the rest."""
    names = {b"file-%05d" % number for number in range(subject.many)}
    for name in names:
        subject.put(folder + b"/" + name, b"")
    found = [entry.name for entry in tree.scan(folder)]
    assert len(found) == len(names)
    assert set(found) == names
    for _ in range(3):
        some = tree.scan(folder)
        assert len(list(itertools.islice(some, 3))) == 3
        del some
    assert tree.stat(folder + b"/file-00000").size == 0


def test_no_path_leaves_the_site(tree: Tree, subject: Subject, folder: bytes) -> None:
    subject.put(b"/../outside/secret", b"not for you")
    for path in (b"/../outside/secret", folder + b"/../../outside/secret"):
        with fails(Trouble.DENIED):
            tree.stat(path)
        with fails(Trouble.DENIED), tree.read(path) as pieces:
            list(pieces)
        with fails(Trouble.DENIED):
            tree.remove(path)
        with fails(Trouble.DENIED):
            tree.rename(path, folder + b"/mine")
        with fails(Trouble.DENIED):
            tree.mkdir(path + b"-folder")
    with fails(Trouble.DENIED):
        list(tree.scan(b"/../outside"))
    assert subject.get(b"/../outside/secret") == b"not for you"
    assert tree.stat(folder + b"/../" + folder[1:]).is_folder


@_LINKS
def test_a_link_is_told_as_such_and_followed_when_asked_for(
    tree: Tree, subject: Subject, folder: bytes
) -> None:
    subject.put(folder + b"/file", b"content")
    subject.folder(folder + b"/inner")
    subject.link(folder + b"/to-file", b"file")
    subject.link(folder + b"/to-folder", b"inner")
    subject.link(folder + b"/to-nothing", b"nothing")
    told = {entry.name: entry for entry in tree.scan(folder)}
    links = {name for name, entry in told.items() if entry.is_link}
    assert links == {b"to-file", b"to-folder", b"to-nothing"}
    assert tree.stat(folder + b"/to-file").is_file
    assert tree.stat(folder + b"/to-file").size == 7
    assert tree.stat(folder + b"/to-folder").is_folder
    with tree.read(folder + b"/to-file") as pieces:
        assert b"".join(pieces) == b"content"
    with fails(Trouble.MISSING):
        tree.stat(folder + b"/to-nothing")
    tree.remove(folder + b"/to-file")  # the link itself
    assert subject.names(folder) == {b"file", b"inner", b"to-folder", b"to-nothing"}


@_LINKS
def test_no_link_leads_out_of_the_site(tree: Tree, subject: Subject, folder: bytes) -> None:
    subject.put(b"/../outside/linked", b"not for you")
    subject.link(folder + b"/file", b"../../outside/linked")
    subject.link(folder + b"/out", b"../../outside")
    for path in (folder + b"/file", folder + b"/out/linked"):
        with fails(Trouble.DENIED):
            tree.stat(path)
        with fails(Trouble.DENIED), tree.read(path) as pieces:
            list(pieces)
    with fails(Trouble.DENIED):
        list(tree.scan(folder + b"/out"))
    with fails(Trouble.DENIED):
        tree.remove(folder + b"/out/linked")
    with fails(Trouble.DENIED):
        tree.mkdir(folder + b"/out/made")
    with fails(Trouble.DENIED):
        tree.rename(folder + b"/out/linked", folder + b"/mine")
    assert subject.get(b"/../outside/linked") == b"not for you"
    assert b"made" not in subject.names(b"/../outside")
    told = {entry.name: entry.is_link for entry in tree.scan(folder)}
    assert told == {b"file": True, b"out": True}
