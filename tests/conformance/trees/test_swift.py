"""Swift beside what every tree is asked: what others have made, segments, and whom the guard lets through."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pytest_django import Settings

from tests.conformance.trees.handling import MIB, TAG, begin, content, fails, fill, read, write
from tests.conformance.trees.subject_swift import SwiftSubject
from tests.conformance.trees.subjects import where
from workers.storage.trees.base import Part, StorageFailed, Tree, Trouble
from workers.storage.trees.opening import open_tree
from workers.vocabulary.transfers.reach import Credentials

pytestmark = where(only=lambda found: found is SwiftSubject)


def test_a_clients_site_is_guarded(subject: SwiftSubject, folder: bytes, settings: Settings) -> None:
    """Another purpose's networks are not for sites."""
    settings.GANTRY_SWIFT_ALLOW_NETWORKS = ["127.0.0.0/8"]
    settings.GANTRY_SITE_ALLOW_NETWORKS = []
    tree = open_tree(replace(subject.reach(), guarded=True))
    with fails(Trouble.REFUSED, words="GANTRY_SITE_ALLOW_NETWORKS"):
        tree.stat(folder)
    settings.GANTRY_SITE_ALLOW_NETWORKS = ["127.0.0.0/8"]
    assert tree.stat(folder).is_folder
    tree.close()


def test_the_ways_to_say_who_one_is(subject: SwiftSubject, folder: bytes) -> None:
    reach = subject.reach()
    for user, options in (
        ("test:tester", {"auth_version": "1"}),
        ("tester", {"tenant": "test"}),
    ):
        who = replace(
            reach,
            options={**reach.options, **options},
            credentials=Credentials(username=user, password=reach.credentials.password),
        )
        tree = open_tree(who)
        assert tree.stat(folder).is_folder
        tree.close()
    made = replace(reach, options={"scheme": "http"})
    tree = open_tree(made)  # host, port and scheme alone
    assert tree.stat(folder).is_folder
    tree.close()
    with fails(Trouble.OTHER, words="container"):
        open_tree(replace(reach, path="/"))
    missing = open_tree(replace(reach, path="/no-such-container"))
    with fails(Trouble.MISSING):
        missing.stat(b"/")
    missing.close()


def test_what_others_have_made(tree: Tree, subject: SwiftSubject, folder: bytes) -> None:
    """An object beside a folder of its name, folders without marks and with other ones."""
    subject.put(folder + b"/both", b"content")
    subject.put(folder + b"/both/inner", b"inside")
    subject.mark(folder + b"/marked")
    subject.mark(folder + b"/filled")
    subject.put(folder + b"/filled/file", b"content")
    told = [(entry.name, entry.is_folder) for entry in tree.scan(folder)]
    assert sorted(told) == [(b"both", False), (b"both", True), (b"filled", True), (b"marked", True)]
    assert tree.stat(folder + b"/marked").is_folder
    assert list(tree.scan(folder + b"/marked")) == []
    assert [entry.name for entry in tree.scan(folder + b"/both")] == [b"inner"]
    with fails(Trouble.EXISTS):
        write(tree, folder + b"/marked", b"content", overwrite=True)
    tree.remove(folder + b"/filled/file")
    tree.remove_folder(folder + b"/filled")
    tree.remove_folder(folder + b"/marked")
    assert subject.names(folder) == {b"both"}


def test_an_object_whose_name_is_no_path(tree: Tree, subject: SwiftSubject, folder: bytes) -> None:
    """The folder is refused, it is not told without it."""
    subject.put_object(f"{folder.decode()}//file", b"content")
    with fails(Trouble.NAME, words="no path"):
        list(tree.scan(folder))


def test_segments_go_with_their_file(tree: Tree, subject: SwiftSubject, folder: bytes) -> None:
    data = content(2 * MIB + 1)
    write(tree, folder + b"/file", data)
    assert len(subject.segments(folder)) == 3
    assert tree.checksum(folder + b"/file", "md5") != ""
    tree.rename(folder + b"/file", folder + b"/new")
    assert read(tree, folder + b"/new") == data
    assert len(subject.segments(folder)) == 3
    write(tree, folder + b"/other", content(MIB + 1))
    tree.rename(folder + b"/new", folder + b"/other", overwrite=True)
    assert subject.get(folder + b"/other") == data
    assert len(subject.segments(folder)) == 3
    write(tree, folder + b"/other", b"small", overwrite=True)
    assert subject.segments(folder) == []
    write(tree, folder + b"/file", data)
    tree.remove(folder + b"/file")
    assert subject.segments(folder) == []


def test_segments_that_are_a_file_are_not_taken_over(
    tree: Tree, subject: SwiftSubject, folder: bytes
) -> None:
    """The report of a commit was lost: neither the next attempt nor the sweep may touch its segments."""
    data = content(2 * MIB)
    write(tree, folder + b"/file", data)
    again = begin(tree, folder + b"/file", len(data), attempt=2, before=1, resume=True)
    assert again.held == 0
    again.close()
    tree.discard(folder + b"/file", Part(TAG, 2, before=1))
    assert subject.get(folder + b"/file") == data
    assert len(subject.segments(folder)) == 2


def test_a_manifest_of_an_older_attempt_is_refused_by_swift_itself(
    tree: Tree, subject: SwiftSubject, folder: bytes
) -> None:
    """Also where it has looked before the take-over."""
    data = content(2 * MIB)
    first = begin(tree, folder + b"/file", len(data))
    fill(first, data)
    first._left = lambda connection: []  # type: ignore[attr-defined]
    second = begin(tree, folder + b"/file", len(data), attempt=2, before=1, resume=True)
    assert second.held == len(data)
    with pytest.raises(StorageFailed):
        first.commit(overwrite=False)
    first.close()
    assert subject.get(folder + b"/file") is None
    second.finish()
    second.commit(overwrite=False)
    second.close()
    assert subject.get(folder + b"/file") == data
    assert subject.names(folder) == {b"file"}
