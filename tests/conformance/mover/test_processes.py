"""The mover's processes: several that share a batch, one that dies, a shim that is gone."""

from __future__ import annotations

import errno
import signal
from dataclasses import replace

import psutil

from tests.conformance.mover.moving import Mover, Running
from tests.conformance.trees.handling import content
from tests.conformance.trees.subjects import where
from tests.support.machine import alive
from tests.support.waiting import wait_until


def _several(mover: Mover, rate: int) -> Running:
    """A mover that has begun: several processes, and much left to do."""
    mover.subject.folder(mover.at(b"from"))
    mover.put(b"from/f", content(100_000))
    orders = [mover.order("COPY", b"from/f", b"to/%d" % number, n=number, size=3) for number in range(240)]
    running = mover.start(*orders, rate=rate)
    wait_until(lambda: len(running.told()) > 4, why="some have ended", see=running.told)
    return running


@where(only=lambda subject: subject.id == "local")
def test_one_of_several_processes_is_killed(mover: Mover) -> None:
    """Catches a mover that ends well without its other half; elements without an end, or with two."""
    mover.subject.folder(mover.at(b"from"))
    for number in range(240):
        mover.put(b"from/%d" % number, b"%d" % number)
    names = [(b"from/%d" % number, b"to/%d" % number) for number in range(240)]
    orders = [mover.order("COPY", *pair, n=number, size=3) for number, pair in enumerate(names)]
    env = {"GANTRY_CRASH_AT": "transfer.after_commit", "GANTRY_CRASH_ONCE": str(mover.home / "once")}
    first = mover.start(*orders, env=env)
    assert first.process.wait(60) == -signal.SIGKILL
    ended = {line["n"] for line in first.told() if line["r"] == "end"}
    rest = [replace(order, attempt=2, part=1, committed=True) for order in orders if order.n not in ended]
    assert rest
    report = mover.run(*rest)
    assert (report.code, [end["log"] for end in report.ends.values() if not end["ok"]]) == (0, [])
    assert set(report.ends) == {order.n for order in rest}
    assert mover.names(b"to") == {b"%d" % number for number in range(240)}
    assert all(mover.get(dst) == src[5:] for src, dst in names)


@where(only=lambda subject: subject.id == "local")
def test_several_processes_stop(mover: Mover) -> None:
    running = _several(mover, 1_000_000)
    running.process.send_signal(signal.SIGTERM)
    report = running.ended()
    assert report.code == 143
    assert 0 < len(report.ends) < 240
    assert mover.names(b"to") - mover.parts(b"to") == {
        b"%d" % number for number, end in report.ends.items() if end["ok"]
    }


@where(only=lambda subject: subject.id == "local")
def test_none_of_several_outlives_the_first(mover: Mover) -> None:
    """Catches processes that go on when nobody is left who could stop them, while others do it again."""
    running = _several(mover, 50_000)
    others = [child.pid for child in psutil.Process(running.process.pid).children(recursive=True)]
    assert len(others) > 1
    running.kill()
    wait_until(lambda: not any(map(alive, others)), why="the others end, too")


def test_without_its_shim_it_does_nothing(mover: Mover) -> None:
    """The shim's lock is nobody's: it was killed while the mover was being loaded, before it was bound."""
    mover.put(b"f", b"content")
    mover.next_folder().mkdir()
    (mover.next_folder() / "lock").touch()
    running = mover.start(mover.order("COPY", b"f", b"g"))
    assert running.process.wait(60) == 128 + signal.SIGTERM
    assert mover.names() == {b"f"}
    assert running.told() == []


@where(only=lambda subject: subject.id == "local")
def test_small_files_go_together_and_end_alone(mover: Mover) -> None:
    """Catches a handful that is ended by one of its own, and a part of one that was held up by another."""
    mover.subject.folder(mover.at(b"from"))
    for number in range(40):
        mover.put(b"from/%d" % number, b"%02d" % number)
    mover.put(b"from/39", b"grown since it was listed")
    mover.subject.folder(mover.at(b"to"))
    mover.put(b"to/9", b"there")
    orders = [
        mover.order("COPY", b"from/%d" % number, b"to/%d" % number, n=number, size=2) for number in range(40)
    ]
    orders[7] = replace(orders[7], src=orders[7].src + "-nothing")
    orders[11] = replace(orders[11], dst=orders[9].dst + "/below")
    report = mover.run(*orders, streams=1)
    assert {number: end["code"] for number, end in report.ends.items() if not end["ok"]} == {
        7: errno.ENOENT,
        9: errno.EEXIST,
        11: errno.ENOTDIR,
    }
    assert set(report.ends) == set(range(40))
    assert mover.parts(b"to") == set()
    assert (mover.get(b"to/9"), mover.get(b"to/39")) == (b"there", b"grown since it was listed")
    assert all(
        mover.get(b"to/%d" % number) == b"%02d" % number for number in range(39) if number not in (7, 9, 11)
    )
