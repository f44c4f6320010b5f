"""Bytes that change on the way, servers that die on the way: none of it is ever seen under a file's name."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.mover.moving import ALL, Line, Mover, Report
from tests.conformance.trees.handling import MIB, content, read
from tests.conformance.trees.subjects import Subject, where
from tests.support.disk import apart
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until
from workers.storage.trees.opening import open_tree
from workers.vocabulary.transfers.orders import Order
from workers.vocabulary.transfers.reach import Protocol, Reach

_SIZE = 3 * MIB + 17
_OLD = 1_000_000_000
#: Bytes/s; a rate keeps servers from copying without us.
_FAST = 1 << 30
_NETWORKED = where(only=lambda subject: subject.protocol is not Protocol.LOCAL)
_WAYS = pytest.mark.parametrize("up", [True, False], ids=["up", "down"])


def _between(mover: Mover, reach: Reach, up: bool) -> dict[str, Any]:
    """From our site to that one, or from there to ours."""
    there = replace(reach, site="there")
    return {"target": there} if up else {"source": there, "target": mover.subject.reach()}


def _again(mover: Mover, first: Line, **ends: Any) -> Report:
    """The next attempt, told what the one before has left."""
    part = 1 if first.get("part") else None
    version = first.get("version", "")
    return mover.run(mover.order("COPY", b"f", b"g", attempt=2, part=part, version=version), **ends)


def _damaged(mover: Mover, wire: Proxy, up: bool, *, sealed: bool, **ends: Any) -> None:
    """A bit of the content is another one once: that attempt fails, the next one does it."""
    ends = {**ends, "rate": _FAST, "options": {"checksum": True}}
    wire.flip(_SIZE // 2, outward=up)
    first = mover.run(mover.order("COPY", b"f", b"g"), **ends).failed(again=True)
    assert wire.flipped
    assert first["code"] == (errno.ETIMEDOUT if sealed else errno.EBADMSG), first["log"]
    assert b"g" not in mover.names()
    _again(mover, first, **ends).done()


@_NETWORKED
@_WAYS
def test_a_bit_that_is_turned_over(mover: Mover, up: bool) -> None:
    """By the transport where it sees to that (SSH, TLS), else by a checksum of what has arrived."""
    data = content(_SIZE)
    mover.put(b"f", data, mtime=_OLD)
    with mover.subject.wire() as wire:
        ends = _between(mover, mover.subject.by_way_of(wire), up)
        _damaged(mover, wire, up, sealed=mover.subject.sealed, **ends)
    assert mover.get(b"g") == data
    assert mover.names() == {b"f", b"g"}


@where(only=lambda subject: subject.protocol is Protocol.WEBDAV)
def test_a_bit_that_is_turned_over_in_the_clear(mover: Mover, subject: Subject) -> None:
    """A server that tells no checksum: what it has is read back where that was asked for."""
    data = content(_SIZE)
    mover.put(b"f", data, mtime=_OLD)
    with subject.small(16) as reach, Proxy(("127.0.0.1", reach.port)) as wire:
        site = open_tree(reach)
        site.mkdir(mover.folder)
        there = replace(reach, port=wire.port, site="there")
        wire.flip(_SIZE // 2, outward=True)
        order = mover.order("COPY", b"f", b"g")
        first = mover.run(order, target=there, options={"checksum": True}).failed(again=True)
        assert first["code"] == errno.EBADMSG, first["log"]
        assert list(site.scan(mover.folder)) == []
        mover.run(replace(order, attempt=2), target=there, options={"checksum": True}).done()
        assert read(site, mover.at(b"g")) == data
        site.close()


@where(only=lambda subject: subject.id == "local")
def test_a_disk_that_fills_up(mover: Mover, tmp_path: Path, settings: Any) -> None:
    """There was room for it when it began. Catches a write that stops half-way and is called done."""
    folder = tmp_path / "small"
    folder.mkdir()
    settings.GANTRY_LOCAL_SITES = [*settings.GANTRY_LOCAL_SITES, str(folder)]
    data = content(6 * MIB)
    mover.put(b"f", data, mtime=_OLD)
    there = Reach(protocol=Protocol.LOCAL, path=str(folder), site="small")
    order = Order(n=1, act="COPY", src=mover.at(b"f").decode(), dst="/g")
    mark = tmp_path / "once"
    env = {
        "GANTRY_CRASH_AT": "transfer.in_content",
        "GANTRY_CRASH_ONCE": str(mark),
        "GANTRY_CRASH_HOW": "hold",
    }
    running = mover.start(order, target=there, env=env, under=apart(folder, 8))
    wait_until(mark.exists, why="it has begun", see=running.told)
    seen = Path(f"/proc/{running.process.pid}/root{folder}")
    (seen / "other").write_bytes(bytes(4 * MIB))
    Path(f"{mark}.go").touch()
    end = running.ended().failed(again=True)
    assert end["code"] == errno.ENOSPC, end["log"]


@pytest.mark.long
@pytest.mark.timeout(1200)
@where(only=ALL)
def test_five_gib(mover: Mover, tmp_path: Path, settings: Any) -> None:
    """More than 32 bits count, more than one request of a store of objects holds; most of it is a hole."""
    size, marks = 5 << 30, {0: b"begin", 1 << 32: b"middle", (5 << 30) - 3: b"end"}
    with (tmp_path / "f").open("wb") as file:
        file.truncate(size)
        for at, words in marks.items():
            file.seek(at)
            file.write(words)
    settings.GANTRY_LOCAL_SITES = [*settings.GANTRY_LOCAL_SITES, str(tmp_path)]
    source = Reach(protocol=Protocol.LOCAL, path=str(tmp_path), site="large")
    order = Order(n=1, act="COPY", src="/f", dst=mover.at(b"g").decode())
    end = mover.start(order, source=source).ended(900).done()
    assert (end["size"], end["moved"]) == (size, size)
    tree = mover.subject.tree()
    assert tree.stat(mover.at(b"g")).size == size
    for at, words in marks.items():
        with tree.read(mover.at(b"g"), offset=at) as pieces:
            assert next(iter(pieces)).startswith(words)
    assert mover.names() == {b"g"}
    tree.remove(mover.at(b"g"))
