"""SFTP: what is special about it. What every tree has to hold, outages among it, is in the common suite."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import pytest

from tests.conformance.trees.handling import MIB, begin, content, fails, fill, read, write
from tests.support.sshd import Sshd, running
from tests.support.waiting import limit, wait_until
from workers.storage.trees.base import Part, StorageFailed, TransferOptions, Trouble
from workers.storage.trees.opening import open_tree
from workers.storage.trees.sftp.tree import SftpTree

_LARGE_MB = 96
_FLAT = """
import resource, sys
import django
django.setup()
from workers.storage.trees.base import Part
from workers.storage.trees.opening import open_tree
from workers.vocabulary.transfers.reach import Reach
import json
tree = open_tree(Reach.from_json(json.loads(sys.argv[1])))
tree.stat(b"/small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
come, size = 0, tree.stat(b"/large").size
receiving = tree.receive(b"/copy", Part("gantry-7-3"), size)
with tree.read(b"/large") as pieces:
    for piece in pieces:
        come += len(piece)
        receiving.send(piece)
receiving.finish()
receiving.commit(overwrite=False)
tree.close()
assert come == size, (come, size)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Sshd]:
    with running() as made:
        yield made


@pytest.fixture
def sshd(shared: Sshd) -> Sshd:
    """With the usual options; tests may start it anew."""
    if not shared.running:
        shared.start()
    return shared


@contextmanager
def _anew(sshd: Sshd, **more: Any) -> Iterator[SftpTree]:
    sshd.stop()
    sshd.start(**more)
    with _tree(sshd) as tree:
        yield tree
    sshd.stop()


@contextmanager
def _tree(sshd: Sshd, streams: int = 4, **other: Any) -> Iterator[SftpTree]:
    stall_s = other.pop("stall_s", 60.0)
    tree = SftpTree(sshd.reach(**other), streams, stall_s=stall_s)
    try:
        yield tree
    finally:
        tree.close()


def _put(sshd: Sshd, name: str, data: bytes, mtime: int = 1_000_000_000) -> bytes:
    path = sshd.files / name
    path.write_bytes(data)
    os.utime(path, (mtime, mtime))
    sshd.give(path)
    return b"/" + os.fsencode(name)


def _sessions(sshd: Sshd) -> list[psutil.Process]:
    """The processes that serve files: one for each connection."""
    family = psutil.Process(sshd.pids[0]).children(recursive=True)
    return [process for process in family if not process.children()]


def test_two_hundred_files_in_flight(sshd: Sshd) -> None:
    """All open at once, on few connections: none of them waits for another to end."""
    count, data, size = 200, content(300_000), 560_000
    _put(sshd, "source", data)
    with _tree(sshd, streams=16) as tree, ExitStack() as stack:
        readings = [stack.enter_context(tree.read(b"/source")) for _ in range(count)]
        begun = [next(pieces) for pieces in readings]
        writings = [tree.receive(b"/target-%d" % n, Part(f"gantry-7-{n}"), size) for n in range(count)]
        for writing in writings:
            writing.send(bytes(size - 10))
        assert len(_sessions(sshd)) == 2
        with ThreadPoolExecutor(50) as threads:
            ends = threads.map(b"".join, readings)
            assert all(first + rest == data for first, rest in zip(begun, ends, strict=True))

            def end(writing: Any) -> int:
                writing.send(bytes(10))
                writing.finish()
                there: int = writing.commit(overwrite=False).size
                writing.close()
                return there

            assert list(threads.map(end, writings)) == [size] * count


def test_a_large_file_does_not_fill_the_memory(sshd: Sshd) -> None:
    _put(sshd, "small", b"x")
    with (sshd.files / "large").open("wb") as file:
        file.truncate(_LARGE_MB << 20)
    done = subprocess.run(
        [sys.executable, "-c", _FLAT, json.dumps(sshd.reach().to_json())],
        capture_output=True,
        text=True,
        timeout=limit(300),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (sshd.files / "copy").stat().st_size == _LARGE_MB << 20
    assert int(done.stdout) < 40 * 1024


def test_a_server_that_stands_still(sshd: Sshd) -> None:
    _put(sshd, "file", b"content")
    with _tree(sshd, stall_s=1.0) as tree:
        tree.stat(b"/file")
        with sshd.frozen(), fails(Trouble.AWAY, words="/file"):
            tree.stat(b"/file")
        assert read(tree, b"/file") == b"content"
        # Only who serves the files: the connection itself is alive.
        (session,) = _sessions(sshd)[-1:]
        os.kill(session.pid, signal.SIGSTOP)
        try:
            with fails(Trouble.AWAY, words="said nothing for 1 s"):
                tree.stat(b"/file")
        finally:
            os.kill(session.pid, signal.SIGCONT)
        assert read(tree, b"/file") == b"content"
    with sshd.frozen(), fails(Trouble.AWAY, words="while connecting"), _tree(sshd, stall_s=1.0) as tree:
        tree.stat(b"/file")


def test_a_slow_sender_hears_of_a_loss(sshd: Sshd) -> None:
    """Catches one who goes on sending to nobody until a window of megabytes is full."""
    with _tree(sshd) as tree:
        writing = tree.receive(b"/target", Part("gantry-7-1"), 64 * MIB)
        writing.send(content(MIB))
        sshd.stop()
        sent = 1

        def heard() -> bool:
            nonlocal sent
            sent += 1
            try:
                writing.send(content(MIB))
            except StorageFailed as failed:
                return failed.trouble is Trouble.AWAY
            return False

        wait_until(heard, every_s=0.3, why="the loss is heard of")
        assert sent < 7
        writing.close()


def test_a_session_that_ends_alone(sshd: Sshd) -> None:
    """Catches a tree that goes on asking on a connection that serves no files any more."""
    _put(sshd, "file", b"content")
    with _tree(sshd) as tree:
        tree.stat(b"/file")
        (session,) = _sessions(sshd)[-1:]
        session.kill()
        wait_until(
            lambda: not session.is_running() or session.status() == psutil.STATUS_ZOMBIE, why="it ends"
        )

        def asked() -> bytes | None:
            try:
                return read(tree, b"/file")
            except StorageFailed as failed:
                if failed.trouble is not Trouble.AWAY:
                    raise
                return None

        assert wait_until(asked, why="the tree connects again") == b"content"


def test_home_is_the_accounts_own(sshd: Sshd) -> None:
    (sshd.home / "note").write_bytes(b"at home")
    (sshd.home / "out").symlink_to(sshd.files)
    sshd.give(sshd.home / "note")
    _put(sshd, "file", b"content")
    with _tree(sshd) as tree:
        home = tree.home()
        assert read(tree, home + b"/note") == b"at home"
        write(tree, home + b"/new", b"new")
        assert {entry.name for entry in tree.scan(home)} == {b"note", b"new", b"out"}
        assert (sshd.home / "new").read_bytes() == b"new"
        for path in (b"/out/file", b"/out"):
            with fails(Trouble.DENIED, words="leads out"):
                list(tree.scan(home + path))
        with fails(Trouble.DENIED):
            tree.remove_folder(home)
        assert {entry.name for entry in tree.scan(b"/")} >= {b"file"}
        assert home[1:] not in {entry.name for entry in tree.scan(b"/")}
    with _tree(sshd, path=str(sshd.home.parent)) as tree:
        assert tree.home() == b"/" + os.fsencode(sshd.home.name)
    with _tree(sshd, path="/") as tree:
        assert tree.home() == os.fsencode(os.path.realpath(sshd.home))
        assert read(tree, tree.home() + b"/note") == b"at home"


def test_where_the_site_begins_is_missing(sshd: Sshd) -> None:
    with _tree(sshd, path=str(sshd.files / "no" / "such")) as tree, fails(Trouble.MISSING, words="no/such"):
        tree.stat(b"/")


def test_a_pipe_keeps_nobody_waiting(sshd: Sshd) -> None:
    os.mkfifo(sshd.files / "pipe")
    sshd.give(sshd.files / "pipe")
    with _tree(sshd) as tree, fails(Trouble.OTHER, words="/pipe"):
        read(tree, b"/pipe")


def test_a_link_in_the_place_of_a_part_is_not_followed(sshd: Sshd) -> None:
    """Catches a part that is written where somebody else has let its name lead."""
    (sshd.home / "victim").write_bytes(b"of somebody else")
    sshd.give(sshd.home / "victim")
    with _tree(sshd) as tree:
        for more in ({}, {"attempt": 2, "before": 2, "resume": True}):
            first = begin(tree, b"/linked", 3, **more)
            first.send(b"new")
            first.finish()
            (part,) = (p for p in sshd.files.iterdir() if p.name.startswith(".linked"))
            first.discard()
            part.symlink_to(sshd.home / "victim")
            sshd.give(part)
            again = begin(tree, b"/linked", 3, **more)
            assert again.held == 0
            fill(again, b"new")
            again.commit(overwrite=True)
            again.close()
    assert (sshd.home / "victim").read_bytes() == b"of somebody else"
    assert not (sshd.files / "linked").is_symlink()


def test_what_has_just_been_changed_has_no_version(sshd: Sshd) -> None:
    """Times are whole seconds: two contents of the same second and size could not be told apart."""
    with _tree(sshd) as tree:
        made = write(tree, b"/young", b"content")
        assert made.version == tree.stat(b"/young").version == ""
        path = _put(sshd, "settled", b"content")
        version = tree.stat(path).version
        assert version
        assert read(tree, path, version=version) == b"content"
        _put(sshd, "settled", b"CONTENT", mtime=1_000_000_001)
        with fails(Trouble.CHANGED, words="/settled"):
            read(tree, path, version=version)


def test_the_server_copies_by_itself(sshd: Sshd) -> None:
    data = content(40 * MIB)
    _put(sshd, "copied", data)
    with _tree(sshd) as tree, _tree(sshd) as other, _tree(sshd, path=str(sshd.home)) as elsewhere:
        receiving = begin(tree, b"/by-itself", len(data))
        moved: list[int] = []
        assert tree.copy_here(other, b"/copied", receiving, moved.append, TransferOptions())
        receiving.finish()
        receiving.commit(overwrite=False)
        receiving.close()
        assert (sshd.files / "by-itself").read_bytes() == data
        assert len(moved) > 1
        assert sum(moved) == len(data)
        another = begin(tree, b"/another", 3)
        assert not tree.copy_here(elsewhere, b"/copied", another, moved.append, TransferOptions())

        class Enough(Exception):
            pass

        def enough(count: int) -> None:
            raise Enough

        ended = begin(tree, b"/ended", len(data))
        with pytest.raises(Enough):
            tree.copy_here(other, b"/copied", ended, enough, TransferOptions())
        ended.discard()
        assert not [name for name in sshd.files.iterdir() if "ended" in name.name]


def test_a_server_that_offers_little(sshd: Sshd) -> None:
    """SFTP 3 as it was written: no extensions."""
    _put(sshd, "plain", b"content")
    few = "-P copy-data,posix-rename,fsync,statvfs,fstatvfs,hardlink,limits,lsetstat"
    with _anew(sshd, more=few) as tree:
        assert tree.free_space(b"/") is None
        data = content(MIB)
        write(tree, b"/little", data)
        assert read(tree, b"/little") == data
        with fails(Trouble.OTHER, words="in one step"):
            write(tree, b"/little", b"newer", overwrite=True)
        assert read(tree, b"/little") == data
        receiving = begin(tree, b"/not-by-itself", 7)
        assert not tree.copy_here(tree, b"/plain", receiving, lambda count: None, TransferOptions())


def test_a_disk_that_is_full(sshd: Sshd) -> None:
    """What is there of the part is good to go on with: it ends before the first byte that is missing."""
    data = content(8 * MIB)
    with _anew(sshd, disk_mb=4) as tree:
        receiving = begin(tree, b"/file", len(data))
        with fails(Trouble.FULL, words="full"):
            fill(receiving, data)
        receiving.close()
        free = tree.free_space(b"/")
        assert free is not None
        assert free < MIB
        again = begin(tree, b"/file", len(data), attempt=2, before=1, resume=True)
        assert 0 < again.held <= 4 * MIB
        (part,) = tree.scan(b"/")
        assert read(tree, b"/" + part.name) == data[: again.held]
        again.discard()
        write(tree, b"/small", data[:1000])
        assert {entry.name for entry in tree.scan(b"/")} == {b"small"}


def test_a_tree_that_is_closed(sshd: Sshd) -> None:
    """Catches a thread that outlives its tree, and who waits for ever for one that has ended."""
    before = set(threading.enumerate())
    _put(sshd, "file", b"content")
    with _tree(sshd) as tree:
        assert read(tree, b"/file") == b"content"
        with tree.read(b"/file"):
            tree.close()
        for ask in (lambda: tree.stat(b"/file"), lambda: read(tree, b"/file"), tree.home):
            with fails(Trouble.AWAY, words="closed"):
                ask()
    assert set(threading.enumerate()) <= before


def test_opening_asks_nobody(sshd: Sshd) -> None:
    sshd.stop()
    before = set(threading.enumerate())
    tree = open_tree(sshd.reach())
    assert set(threading.enumerate()) <= before
    tree.close()
    with fails(Trouble.AWAY, words="closed"):
        tree.home()
