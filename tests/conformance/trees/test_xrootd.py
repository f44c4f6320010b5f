"""XRootD beside what every tree is asked: what its server and its library get wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conformance.trees.handling import fails, read, write
from tests.conformance.trees.subject_xrootd import XrootdSubject
from tests.conformance.trees.subjects import where
from tests.support.waiting import limit
from workers.storage.trees.base import Tree, Trouble
from workers.storage.trees.opening import open_tree
from workers.storage.trees.xrootd import listing
from workers.vocabulary.transfers.reach import Credentials

pytestmark = where(only=lambda found: found is XrootdSubject)

_LEAVES_A_FILE_OPEN = """
import sys
from django.utils.functional import SimpleLazyObject
from workers.storage.trees.opening import open_tree
from workers.vocabulary.transfers.reach import Reach
def never(): raise RuntimeError("woken")
lazy = SimpleLazyObject(never)
tree = open_tree(Reach(protocol="XROOTD", host="127.0.0.1", port=int(sys.argv[1]), guarded=False))
reading = tree.read(sys.argv[2].encode())
pieces = reading.__enter__()
assert next(pieces) == b"content"
"""


def test_only_operators_sites(subject: XrootdSubject) -> None:
    with fails(Trouble.REFUSED, words="operator"):
        open_tree(replace(subject.reach(), guarded=True))


def test_a_users_name_leads_nowhere_else(subject: XrootdSubject) -> None:
    for name in ("me@elsewhere:1094/", "me:secret", "me/", "me?x=1"):
        with fails(Trouble.DENIED, words="name"):
            open_tree(replace(subject.reach(), credentials=Credentials(username=name)))


@pytest.mark.parametrize("at_once", [1000, 1])
def test_a_listing_goes_on_after_a_link_that_leads_nowhere(
    tree: Tree, subject: XrootdSubject, folder: bytes, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """The server's listing with attributes ends there, as if that were all."""
    monkeypatch.setattr(listing, "_AT_ONCE", at_once)
    names = {b"file-%d" % number for number in range(20)}
    for name in names:
        subject.put(folder + b"/" + name, b"content")
        subject.link(folder + b"/to-nothing-of-" + name, b"nothing")
    told = {entry.name: entry for entry in tree.scan(folder)}
    assert {name for name, entry in told.items() if entry.is_file and entry.size == 7} == names
    assert {name for name, entry in told.items() if entry.is_link} == subject.names(folder) - names
    tree.remove(folder + b"/to-nothing-of-file-0")
    assert b"to-nothing-of-file-0" not in subject.names(folder)


def test_a_walk_ends_where_a_link_leads_back(tree: Tree, subject: XrootdSubject, folder: bytes) -> None:
    subject.folder(folder + b"/inner")
    subject.link(folder + b"/inner/up", b"..")
    subject.link(folder + b"/inner/self", b".")
    assert [entry.is_folder for entry in tree.scan(folder)] == [True]
    assert [entry.is_link for entry in tree.scan(folder + b"/inner")] == [True, True]


def test_a_link_to_another_folder_is_no_folder(tree: Tree, subject: XrootdSubject, folder: bytes) -> None:
    """Catches a REMOVE that goes on through it: what is there is somebody else's."""
    for name in (b"/here/real/deep", b"/there/precious"):
        subject.folder(folder + name)
    subject.link(folder + b"/here/relative", b"../there/precious")
    subject.link(folder + b"/here/absolute", subject.real(folder + b"/there/precious"))
    subject.link(folder + b"/here/above", b"../there")
    told = {entry.name: (entry.is_folder, entry.is_link) for entry in tree.scan(folder + b"/here")}
    assert told.pop(b"real") == (True, False)
    assert told == dict.fromkeys((b"relative", b"absolute", b"above"), (False, True))
    assert [entry.name for entry in tree.scan(folder + b"/here/real")] == [b"deep"]
    tree.remove(folder + b"/here/relative")
    assert subject.names(folder + b"/here") == {b"real", b"absolute", b"above"}
    for name in (b"absolute", b"real"):
        with fails(Trouble.IS_FOLDER):
            tree.remove(folder + b"/here/" + name)
    assert subject.is_folder(folder + b"/there/precious")
    many = {b"%03d" % number for number in range(300)}
    for name in many:
        subject.folder(folder + b"/many/" + name)
    assert {entry.name for entry in tree.scan(folder + b"/many") if entry.is_folder} == many


@pytest.mark.parametrize("at_once", [1000, 1])
@pytest.mark.parametrize("name", [b"a\xffb", b"a\nb"])
def test_a_name_that_it_cannot_tell(
    tree: Tree,
    subject: XrootdSubject,
    folder: bytes,
    monkeypatch: pytest.MonkeyPatch,
    name: bytes,
    at_once: int,
) -> None:
    """The folder is refused, it is not told without it; and the process lives."""
    monkeypatch.setattr(listing, "_AT_ONCE", at_once)
    for each in (b"before", name, b"later"):
        subject.put(folder + b"/" + each, b"content")
    with fails(Trouble.NAME, words="rename it at the server"):
        list(tree.scan(folder))


def test_a_name_with_a_question_mark_is_told_and_refused(
    tree: Tree, subject: XrootdSubject, folder: bytes
) -> None:
    subject.put(folder + b"/what", b"other")
    subject.put(folder + b"/what?x=1", b"content")
    assert {entry.name for entry in tree.scan(folder)} == {b"what", b"what?x=1"}
    with fails(Trouble.NAME, words="what"):
        read(tree, folder + b"/what?x=1")
    with fails(Trouble.NAME):
        tree.remove(folder + b"/what?x=1")
    with fails(Trouble.NAME):
        tree.rename(folder + b"/what", folder + b"/new?")
    assert len(subject.names(folder)) == 2


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="True is counted no more")
def test_many_files_do_not_use_up_pythons_true(tree: Tree, folder: bytes) -> None:
    """The library gives it away uncounted: after some hundred files the process was dead."""
    write(tree, folder + b"/file", b"content")
    assert read(tree, folder + b"/file") == b"content"
    before = sys.getrefcount(True)
    for _ in range(50):
        assert read(tree, folder + b"/file") == b"content"
    assert sys.getrefcount(True) > before - 50


def test_a_process_ends_with_a_file_open(tree: Tree, subject: XrootdSubject, folder: bytes) -> None:
    write(tree, folder + b"/file", b"content")
    path = subject.reach().path.encode() + folder + b"/file"
    done = subprocess.run(
        [sys.executable, "-c", _LEAVES_A_FILE_OPEN, str(subject.server.port), path],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": ""},
        capture_output=True,
        timeout=limit(60),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.long
def test_a_silent_server_is_noticed(subject: XrootdSubject, folder: bytes) -> None:
    """A minute of silence, and a little."""
    tree = open_tree(subject.reach())
    subject.put(folder + b"/file", b"content")
    assert tree.stat(folder + b"/file").size == 7
    subject.server.freeze()
    try:
        with fails(Trouble.AWAY):
            tree.stat(folder + b"/file")
        with fails(Trouble.AWAY):
            list(tree.scan(folder))
    finally:
        subject.server.thaw()
    tree.close()
