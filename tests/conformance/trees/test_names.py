"""Odd names: each is held as it is, byte for byte, or refused by name."""

from __future__ import annotations

import pytest

from tests.conformance.trees.handling import TAG, begin, fails, fill, read, write
from tests.conformance.trees.subjects import Subject
from workers.storage.trees.base import Part, Tree, Trouble
from workers.storage.trees.parts import part_name

ODD = {
    "space": b"a b",
    "percent-escape": b"a%20b",
    "percent": b"100%",
    "percent-slash": b"a%2Fb",
    "quotes": b'it\'s "quoted"',
    "composed": "caf\u00e9".encode(),
    "decomposed": "cafe\u0301".encode(),
    "four-bytes": "\U0001f600".encode(),
    "dash": b"-rf",
    "newline": b"a\nb",
    "tab": b"a\tb",
    "pattern": b"[x]*",
    "space-at-the-end": b"end ",
    "space-at-the-begin": b" begin",
    "backslash": b"a\\b",
    "question": b"what?",
    "hash": b"a#b",
    "plus": b"a+b",
    "and": b"a&b=c;d",
    "colon": b"a:b",
    "at": b"me@host:1",
    "tilde": b"~",
    "angle": b"<a>",
    "dollar": b"$HOME `x`",
    "dots": b"...",
    "hidden": b".hidden",
    "entity": b"a&amp;b",
    "byte-ff": b"a\xffb",
    "long": b"n" * 200,
}


@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
def test_a_name(tree: Tree, subject: Subject, folder: bytes, name: bytes) -> None:
    path, inner = folder + b"/" + name, folder + b"/" + name + b".d"
    if not subject.holds(name):
        with fails(Trouble.NAME):
            write(tree, path, b"content")
        with fails(Trouble.NAME):
            tree.mkdir(inner)
        assert subject.names(folder) == set()
        return
    write(tree, path, b"content")
    assert subject.get(path) == b"content"
    tree.mkdir(inner)
    write(tree, inner + b"/" + name, b"inside")
    assert subject.get(inner + b"/" + name) == b"inside"
    assert {entry.name for entry in tree.scan(folder)} == {name, name + b".d"} == subject.names(folder)
    assert [entry.name for entry in tree.scan(inner)] == [name]
    assert (tree.stat(path).name, tree.stat(path).size) == (name, 7)
    assert tree.stat(inner).is_folder
    assert read(tree, inner + b"/" + name) == b"inside"
    tree.rename(inner + b"/" + name, inner + b"/" + name + b"-2")
    assert subject.names(inner) == {name + b"-2"}
    again = begin(tree, path, 3, attempt=2, before=1)
    fill(again, b"new")
    again.discard()
    again.close()
    tree.remove(inner + b"/" + name + b"-2")
    tree.remove_folder(inner)
    tree.remove(path)
    assert subject.names(folder) == set()


def test_names_that_others_take_for_the_same(tree: Tree, subject: Subject, folder: bytes) -> None:
    """Escaped and not, composed and decomposed, a pattern and what it matches, large and small letters."""
    alike = [b"a b", b"a%20b", b"a+b", b"[x]*", b"x", b"File", b"file", b"end ", b"end"]
    alike = [name for name in (*alike, ODD["composed"], ODD["decomposed"]) if subject.holds(name)]
    for name in alike:
        write(tree, folder + b"/" + name, b"of " + name)
    assert subject.names(folder) == set(alike) == {entry.name for entry in tree.scan(folder)}
    for name in alike:
        assert read(tree, folder + b"/" + name) == b"of " + name
    tree.remove(folder + b"/[x]*") if b"[x]*" in alike else None
    assert subject.names(folder) == set(alike) - {b"[x]*"}


def test_the_longest_name(tree: Tree, subject: Subject, folder: bytes) -> None:
    longest = b"n" * subject.name_max
    write(tree, folder + b"/" + longest, b"content")
    assert subject.names(folder) == {longest}
    assert read(tree, folder + b"/" + longest) == b"content"
    with fails(Trouble.NAME):
        write(tree, folder + b"/" + longest + b"n", b"content")
    assert subject.names(folder) == {longest}


def test_what_is_no_name(tree: Tree, folder: bytes) -> None:
    with fails(Trouble.NAME):
        write(tree, folder + b"/a\0b", b"content")
    with fails(Trouble.NAME):
        tree.stat(folder + b"/a\0b")
    with fails(Trouble.NAME):
        tree.mkdir(folder + b"/a\0b")


def test_a_folder_of_an_odd_name_in_the_middle_of_a_path(tree: Tree, subject: Subject, folder: bytes) -> None:
    odd = b"a%20b #?" if subject.holds(b"?") else b"a%20b #"
    middle = folder + b"/" + odd + b"/in [side]"
    subject.folder(middle)
    write(tree, middle + b"/file", b"content")
    assert subject.get(middle + b"/file") == b"content"
    assert [entry.name for entry in tree.scan(folder)] == [odd]


def test_somebody_elses_file_that_looks_like_a_part(tree: Tree, subject: Subject, folder: bytes) -> None:
    """Only the parts of that element and attempt are ours."""
    mine, theirs = part_name(b"file", TAG, 7), b".file.part"
    subject.put(folder + b"/" + mine, b"x")
    subject.put(folder + b"/" + theirs, b"x")
    tree.discard(folder + b"/file", Part(TAG, 2, before=1))
    assert subject.names(folder) == {mine, theirs}
