"""COPY, an element at a time: what is at the target afterwards, what is left beside it, what is told."""

from __future__ import annotations

import errno
import os
import zlib
from dataclasses import replace

import pytest

from tests.conformance.mover.moving import ALL, Mover
from tests.conformance.trees.handling import MIB, content
from tests.conformance.trees.subjects import Subject, where
from tests.support.waiting import wait_until
from workers.storage.trees.base import ALGORITHMS
from workers.vocabulary.transfers.reach import Protocol

_ODD = [
    b"a b",
    b'it\'s "q"',
    "e\u0301\u00e9".encode(),
    b"-dash",
    b"new\nline",
    b"a%20b",
    b"[x]*",
    b"end ",
    b"back\\slash",
]


@where(only=ALL)
def test_a_file(mover: Mover) -> None:
    data = content(3 * MIB + 17)
    mover.put(b"f", data)
    end = mover.copy(b"f", b"new/deep/g").done()
    assert mover.get(b"new/deep/g") == data
    assert (end["size"], end["moved"]) == (len(data), len(data))
    assert mover.names(b"new/deep") == {b"g"}
    assert "verified" in end["log"]
    if "adler32" in mover.subject.tree().traits.checksums:
        assert end["checksum"] == f"adler32:{zlib.adler32(data):08x}"


@where(only=ALL)
def test_within_a_site(mover: Mover) -> None:
    """Where the storage copies by itself, it is the same to whoever looks."""
    data = content(3 * MIB + 17)
    mover.put(b"f", data)
    mover.run(mover.order("COPY", b"f", b"new/g"), target=mover.subject.reach()).done()
    assert mover.get(b"new/g") == data
    assert mover.names(b"new") == {b"g"}


def test_an_empty_file(mover: Mover) -> None:
    mover.put(b"f", b"")
    assert mover.copy(b"f", b"g").done()["size"] == 0
    assert mover.get(b"g") == b""


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "true"])
def test_the_checksum_that_was_asked_for(mover: Mover, algorithm: str) -> None:
    """Catches a checksum that nobody has compared, since the storage cannot say it."""
    mover.put(b"f", content(70_000))
    end = mover.copy(b"f", b"g", options={"checksum": algorithm}).done()
    assert end["checksum"].partition(":")[0] in ({algorithm} if algorithm != "true" else set(ALGORITHMS))
    assert end["checksum"].replace(":", " ") in end["log"]


@where(only=ALL)
def test_odd_names(mover: Mover) -> None:
    """Catches names that a shell, JSON or a URL would change; not those that a storage cannot hold."""
    able = [name for name in _ODD if mover.subject.holds(name)]
    mover.subject.folder(mover.at(b"from"))
    for name in able:
        mover.put(b"from/" + name, name)
    orders = [mover.order("COPY", b"from/" + name, b"to/" + name, n) for n, name in enumerate(able, 1)]
    report = mover.run(*orders)
    assert [end["log"] for end in report.ends.values() if not end["ok"]] == []
    assert mover.names(b"to") == set(able)
    assert all(mover.get(b"to/" + name) == name for name in able)


@where(only=lambda subject: subject.id == "local")
def test_a_name_that_is_no_utf8(mover: Mover) -> None:
    mover.put(b"\xff", b"odd")
    report = mover.run(mover.order("COPY", b"\xff", b"to/\xff\\x"))
    report.done()
    assert mover.get(b"to/\xff\\x") == b"odd"


@where(only=ALL)
def test_no_overwriting(mover: Mover) -> None:
    """Catches a target that is touched, a temporary file that stays, a second try that cannot help."""
    mover.put(b"f", b"new")
    mover.put(b"g", b"old")
    before = mover.names()
    end = mover.copy(b"f", b"g", rate=1).failed(again=False)
    assert "overwrite" in end["log"]
    assert mover.get(b"g") == b"old"
    assert mover.names() == before


def test_overwriting(mover: Mover) -> None:
    mover.put(b"f", b"new")
    mover.put(b"g", b"old")
    mover.copy(b"f", b"g", options={"overwrite": True}).done()
    assert mover.get(b"g") == b"new"


def test_onto_a_folder(mover: Mover) -> None:
    """Catches a folder that is replaced; only a single file's destination may be a folder."""
    mover.put(b"f", b"new")
    mover.subject.folder(mover.at(b"tree/f"))
    report = mover.run(
        mover.order("COPY", b"f", b"tree/f"), dst=mover.at(b"tree").decode(), options={"overwrite": True}
    )
    report.failed(again=False)
    single = mover.run(mover.order("COPY", b"f", b"tree"), dst=mover.at(b"tree").decode())
    single.failed(again=False)  # tree/f is a folder, too
    mover.subject.folder(mover.at(b"other"))
    end = mover.run(mover.order("COPY", b"f", b"other"), dst=mover.at(b"other").decode()).done()
    assert mover.get(b"other/f") == b"new"
    assert end["dst"] == mover.at(b"other/f").decode(), "the books are told where it is"


def test_a_trailing_slash_keeps_the_name(mover: Mover) -> None:
    mover.put(b"f", b"new")
    end = mover.run(mover.order("COPY", b"f", b"to/here/"), dst=mover.at(b"to/here/").decode()).done()
    assert mover.get(b"to/here/f") == b"new"
    assert end["dst"] == mover.at(b"to/here/f").decode()


@where(only=lambda subject: subject.id == "local")
def test_the_real_path_is_told_before_its_bytes(mover: Mover) -> None:
    """And is what the next attempt and the sweep are told: there the part is, not beside the folder."""
    mover.put(b"f\xff", content(3 * MIB), mtime=1_000_000_000)
    mover.subject.folder(mover.at(b"to"))
    top = mover.at(b"to").decode()
    order = mover.order("COPY", b"f\xff", b"to")
    running = mover.start(order, dst=top, rate=MIB)
    begun = wait_until(
        lambda: next((line for line in running.told() if line["r"] == "begin" and line["part"]), None),
        why="it has begun",
        see=running.told,
    )
    running.kill()
    assert begun["dst"] == f"{top}/f\\xff"
    assert len(mover.parts(b"to")) == 1
    next_one = replace(order, dst=begun["dst"], attempt=2, part=1, version=begun["version"])
    mover.run(sweep=(replace(next_one, attempt=1),), dst=top)
    assert mover.names(b"to") == set()
    assert "dst" not in mover.run(next_one, dst=top).done()
    assert mover.names(b"to") == {b"f\xff"}


def test_onto_itself(mover: Mover) -> None:
    """Catches a file that is destroyed by being copied to where it is."""
    mover.put(b"f", b"content")
    for name in (b"f", b"./f"):
        end = mover.copy(b"f", name, options={"overwrite": True}).failed(again=False)
        assert "its own source" in end["log"]
    assert mover.get(b"f") == b"content"
    assert mover.names() == {b"f"}


@where(only=lambda subject: subject.id == "local")
def test_onto_itself_by_another_name(mover: Mover, subject: Subject) -> None:
    mover.put(b"f", b"content")
    subject.link(mover.at(b"link"), b"f")
    mover.copy(b"f", b"link", options={"overwrite": True}).failed(again=False)
    assert mover.get(b"f") == b"content"


def test_a_missing_source(mover: Mover) -> None:
    end = mover.copy(b"nothing", b"g").failed(again=False)
    assert end["code"] == 2
    assert mover.names() == set()


@where(only=lambda subject: subject.forbids and subject.protocol is not Protocol.LOCAL)
def test_no_permission(mover: Mover, subject: Subject) -> None:
    """Catches a second try that cannot help, and a part that is left where nobody may remove it."""
    mover.put(b"f", b"new")
    subject.folder(mover.at(b"closed"))
    mover.put(b"closed/g", b"old")
    with subject.forbidden(mover.at(b"closed")):
        for src, dst in ((b"f", b"closed/f"), (b"closed/g", b"g")):
            end = mover.copy(src, dst).failed(again=False)
            assert end["code"] == errno.EACCES, end["log"]
    assert mover.names() == {b"f", b"closed"}
    assert mover.names(b"closed") == {b"g"}


def test_a_folder_onto_a_file(mover: Mover) -> None:
    mover.subject.folder(mover.at(b"from"))
    mover.put(b"from/f", b"new")
    mover.put(b"to", b"old")
    mover.run(mover.order("COPY", b"from/f", b"to/f")).failed()
    assert mover.get(b"to") == b"old"
    assert mover.names() == {b"from", b"to"}


@where(only=ALL)
def test_an_empty_folder(mover: Mover) -> None:
    mover.subject.folder(mover.at(b"from/empty"))
    mover.run(mover.order("COPY", b"from/empty/", b"to/empty")).done()
    assert mover.subject.is_folder(mover.at(b"to/empty"))
    mover.run(mover.order("COPY", b"from/empty/", b"to/empty")).done()


def test_no_parents(mover: Mover) -> None:
    """extra_opts.parent false: what is above the job's own destination is not made."""
    mover.put(b"f", b"new")
    options = {"parent": False}
    report = mover.run(
        mover.order("COPY", b"f", b"none/to/f"), dst=mover.at(b"none/to/f").decode(), options=options
    )
    report.failed(again=False)
    assert mover.names() == {b"f"}
    tree = mover.at(b"to").decode()
    mover.run(mover.order("COPY", b"f", b"to/sub/f"), dst=tree, options=options).done()
    assert mover.get(b"to/sub/f") == b"new"


@where(only=lambda subject: subject.id == "local")
def test_what_is_kept(mover: Mover, subject: Subject) -> None:
    mover.put(b"f", b"new", mtime=1_000_000_000)
    mover.copy(b"f", b"g", options={"preserve": True}).done()
    copied = os.stat(subject.real(mover.at(b"g")))  # type: ignore[attr-defined]  # noqa: PTH116
    assert copied.st_mtime == 1_000_000_000


def test_shorter_than_listed(mover: Mover) -> None:
    """The listing said 10 bytes, 4 are there: never done with 10."""
    mover.put(b"f", b"four")
    end = mover.copy(b"f", b"g", size=10).done()
    assert (end["size"], end["moved"]) == (4, 4)
    assert mover.get(b"g") == b"four"


def test_many_at_once(mover: Mover) -> None:
    """Catches a folder that two threads make, an element without an end."""
    for number in range(60):
        mover.put(b"f%d" % number, b"%d" % number)
    orders = [mover.order("COPY", b"f%d" % n, b"to/%d/sub/f%d" % (n % 7, n), n) for n in range(60)]
    report = mover.run(*orders, streams=8)
    assert (report.code, [end["log"] for end in report.ends.values() if not end["ok"]]) == (0, [])
    assert len(report.ends) == 60
    assert all(mover.get(b"to/%d/sub/f%d" % (n % 7, n)) == b"%d" % n for n in range(60))
