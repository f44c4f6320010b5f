"""REMOVE, RENAME and MKDIR, an element at a time."""

from __future__ import annotations

import os

from tests.conformance.mover.moving import ALL, Mover
from tests.conformance.trees.subjects import Subject, where
from workers.vocabulary.transfers.orders import Order


@where(only=ALL)
def test_removing(mover: Mover) -> None:
    mover.subject.folder(mover.at(b"d"))
    mover.put(b"d/f", b"content")
    mover.run(mover.order("REMOVE", b"d/")).failed(again=False)
    mover.run(mover.order("REMOVE", b"d/f")).done()
    mover.run(mover.order("REMOVE", b"d/")).done()
    assert mover.names() == set()


def test_removing_what_is_not_there(mover: Mover) -> None:
    """Catches a first try that calls it done; after an earlier one it may have been us."""
    mover.run(mover.order("REMOVE", b"f")).failed(again=False)
    mover.run(mover.order("REMOVE", b"f", attempt=2)).done()


def test_the_root_stays(mover: Mover) -> None:
    paths = ("/", "~", "/x/..")
    for act in ("REMOVE", "RENAME"):
        orders = [Order(n=n, act=act, src=path, dst="/y") for n, path in enumerate(paths, 1)]
        report = mover.run(*orders)
        assert [(end["ok"], end["again"]) for end in report.ends.values()] == [(False, False)] * 3
    mover.run(Order(n=0, act="LIST", src="/"), job_act="REMOVE").failed(again=False)


@where(only=lambda subject: subject.links and subject.id in ("local", "sftp"))
def test_a_link_goes_and_its_target_stays(mover: Mover, subject: Subject) -> None:
    mover.put(b"f", b"content")
    subject.folder(mover.at(b"d"))
    mover.put(b"d/g", b"content")
    subject.link(mover.at(b"to-f"), b"f")
    subject.link(mover.at(b"to-d"), b"d")
    subject.link(mover.at(b"to-nothing"), b"nothing")
    names = (b"to-f", b"to-d", b"to-nothing")
    told = mover.run(*(mover.order("LIST", name, n=n) for n, name in enumerate(names)), job_act="REMOVE")
    listed = {row[0] for _, rows in told.listing() for row in rows}
    assert (len(told.listing()), listed) == (3, {os.fsdecode(name) for name in names}), "the links alone"
    report = mover.run(*(mover.order("REMOVE", name, n=n) for n, name in enumerate(names)))
    assert all(end["ok"] for end in report.ends.values())
    assert mover.names() == {b"f", b"d"}
    assert mover.names(b"d") == {b"g"}


@where(only=ALL)
def test_renaming(mover: Mover) -> None:
    mover.put(b"f", b"content")
    mover.put(b"g", b"old")
    mover.run(mover.order("RENAME", b"f", b"g")).failed(again=False)
    mover.run(mover.order("RENAME", b"f", b"f")).failed(again=False)
    if mover.subject.tree().traits.folders:
        mover.run(mover.order("RENAME", b"f", b"none/h")).failed(again=False)
    mover.run(mover.order("RENAME", b"f", b"deep/er/h"), options={"parent": True}).done()
    assert (mover.get(b"deep/er/h"), mover.get(b"f")) == (b"content", None)
    mover.run(mover.order("RENAME", b"deep/er/h", b"g"), options={"overwrite": True}).done()
    assert mover.get(b"g") == b"content"


def test_renaming_a_folder(mover: Mover) -> None:
    mover.subject.folder(mover.at(b"d"))
    mover.put(b"d/f", b"content")
    mover.run(mover.order("RENAME", b"d", b"d/inside")).failed(again=False)
    mover.run(mover.order("RENAME", b"d", b"e")).done()
    assert mover.get(b"e/f") == b"content"


@where(only=ALL)
def test_making_folders(mover: Mover) -> None:
    mover.run(mover.order("MKDIR", b"d")).done()
    mover.run(mover.order("MKDIR", b"d")).failed(again=False)
    if mover.subject.tree().traits.folders:
        mover.run(mover.order("MKDIR", b"a/b/c")).failed(again=False)
    mover.run(mover.order("MKDIR", b"a/b/c"), options={"parent": True}).done()
    mover.run(mover.order("MKDIR", b"a/b/c"), options={"parent": True}).done()
    assert mover.subject.is_folder(mover.at(b"a/b/c"))
    mover.put(b"f", b"content")
    mover.run(mover.order("MKDIR", b"f"), options={"parent": True}).failed(again=False)


@where(only=lambda subject: subject.id == "local")
def test_permissions(mover: Mover, subject: Subject) -> None:
    mover.run(mover.order("MKDIR", b"d"), options={"permissions": "750"}).done()
    made = os.stat(subject.real(mover.at(b"d")))  # type: ignore[attr-defined]  # noqa: PTH116
    assert made.st_mode & 0o7777 == 0o750
    mover.run(mover.order("MKDIR", b"e"), options={"permissions": "rwx"}).failed(again=False)
    assert mover.names() == {b"d"}
