"""A server that dies, or does not let us in: a clear refusal, nothing half-made, and it goes on later."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.conformance.trees.handling import MIB, begin, content, fails, fill, read, write
from tests.conformance.trees.subjects import Subject, where
from tests.support.waiting import wait_until
from workers.storage.trees.base import StorageFailed, Tree, Trouble
from workers.storage.trees.opening import open_tree

T = TypeVar("T")
_MORTAL = where(only=lambda found: found.mortal)
_LARGE = 48 * MIB


def _again(what: Callable[[], T]) -> T:
    """A tree outlives its server: what is asked of it when the server is back works, soon."""

    def asked() -> list[T] | None:
        try:
            return [what()]
        except StorageFailed as failed:
            if not failed.temporary:
                raise
            return None

    return wait_until(asked, why="the tree goes on with a server that is back")[0]


@_MORTAL
def test_a_server_that_dies_while_it_is_read_from(tree: Tree, subject: Subject, folder: bytes) -> None:
    data = content(_LARGE)
    subject.put(folder + b"/file", data)
    found = bytearray()
    with fails(Trouble.AWAY, words="file"), tree.read(folder + b"/file") as pieces:
        for piece in pieces:
            if not found:
                subject.kill()
            found += piece
    assert data.startswith(found)
    assert len(found) < len(data)
    subject.start()
    assert _again(lambda: read(tree, folder + b"/file", offset=len(found))) == data[len(found) :]


@_MORTAL
def test_a_server_that_dies_while_it_is_written_to(tree: Tree, subject: Subject, folder: bytes) -> None:
    data = content(_LARGE)
    receiving = begin(tree, folder + b"/file", len(data))
    with fails(Trouble.AWAY, words="file"):
        for at in range(0, len(data), MIB):
            if at == 8 * MIB:
                subject.kill()
            receiving.send(data[at : at + MIB])
        receiving.finish()
    receiving.close()
    subject.start()
    assert subject.get(folder + b"/file") is None
    again = _again(lambda: begin(tree, folder + b"/file", len(data), attempt=2, before=1, resume=True))
    assert again.held < len(data)
    fill(again, data)
    again.commit(overwrite=False)
    again.close()
    assert subject.get(folder + b"/file") == data
    assert subject.names(folder) == {b"file"}


@_MORTAL
def test_a_server_that_is_away(tree: Tree, subject: Subject, folder: bytes) -> None:
    subject.put(folder + b"/file", b"content")
    receiving = begin(tree, folder + b"/new", 7)
    fill(receiving, b"content")
    subject.kill()
    for asked in (
        lambda: tree.stat(folder + b"/file"),
        lambda: list(tree.scan(folder)),
        lambda: read(tree, folder + b"/file"),
        lambda: tree.remove(folder + b"/file"),
        lambda: tree.mkdir(folder + b"/made"),
        lambda: tree.rename(folder + b"/file", folder + b"/other"),
        lambda: receiving.commit(overwrite=False),
        lambda: write(tree, folder + b"/file", b"new", overwrite=True),
    ):
        with fails(Trouble.AWAY):
            asked()
    receiving.close()
    with fails(Trouble.AWAY):
        fresh = open_tree(subject.reach())
        try:
            fresh.stat(b"/")
        finally:
            fresh.close()
    subject.start()
    assert _again(lambda: tree.stat(folder + b"/file")).size == 7
    assert subject.get(folder + b"/file") == b"content"
    assert subject.get(folder + b"/new") is None


@where(only=lambda found: found.asks)
def test_a_stranger_is_not_let_in(subject: Subject, folder: bytes) -> None:
    subject.put(folder + b"/file", b"content")
    with fails(Trouble.DENIED):
        tree = open_tree(subject.stranger())
        try:
            tree.stat(folder + b"/file")
        finally:
            tree.close()
    assert subject.get(folder + b"/file") == b"content"


@where(only=lambda found: found.forbids)
def test_what_is_not_allowed(tree: Tree, subject: Subject, folder: bytes) -> None:
    subject.folder(folder + b"/closed")
    subject.put(folder + b"/closed/file", b"content")
    with subject.forbidden(folder + b"/closed"):
        with fails(Trouble.DENIED, words="closed"):
            list(tree.scan(folder + b"/closed"))
        with fails(Trouble.DENIED, words="closed"):
            read(tree, folder + b"/closed/file")
        with fails(Trouble.DENIED, words="closed"):
            write(tree, folder + b"/closed/new", b"content")
        with fails(Trouble.DENIED, words="closed"):
            tree.mkdir(folder + b"/closed/made")
        with fails(Trouble.DENIED, words="closed"):
            tree.remove(folder + b"/closed/file")
    assert subject.names(folder + b"/closed") == {b"file"}
