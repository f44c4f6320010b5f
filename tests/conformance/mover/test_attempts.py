"""One attempt after another: killed, interrupted, told to stop; what the next one makes of it."""

from __future__ import annotations

import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.mover.moving import ALL, TAG, Line, Mover, Running
from tests.conformance.trees.handling import MIB, content
from tests.conformance.trees.subjects import Subject, where
from tests.support.waiting import wait_until
from workers.storage.trees.parts import part_path
from workers.vocabulary.crashpoints import TRANSFER_STEPS
from workers.vocabulary.transfers.orders import Order
from workers.vocabulary.transfers.reach import Protocol, Reach

_COPY_STEPS = TRANSFER_STEPS[:7]
_SIZE = 5 * MIB
#: A storage that tells times in seconds knows no version of what is newer than that.
_OLD = 1_000_000_000
#: Subjects at which a part is seen to grow as it is sent; an interrupted one is gone on with.
_SEEN = ("local", "sftp", "xrootd")
#: Where it begins anew, so small a file at least.
_ANEW = ("wsgidav", "swift-s3")


def held(mover: Mover, order: Order, step: str = "transfer.in_content", **more: Any) -> tuple[Running, Line]:
    """A mover that stands still at a step for ever, and what it told of having begun."""
    mark = mover.home / f"hold-{order.attempt}-{step}"
    env = {"GANTRY_CRASH_AT": step, "GANTRY_CRASH_ONCE": str(mark), "GANTRY_CRASH_HOW": "hold"}
    running = mover.start(order, env=env, **more)

    def begun() -> Line | None:
        found = [line for line in running.told() if line["r"] == "begin" and line["part"]]
        return found[-1] if found and mark.exists() else None

    return running, wait_until(begun, why="it has begun", see=running.told)


def interrupted(mover: Mover, order: Order, share: float, rate: int, **more: Any) -> Line:
    """A mover that is killed when so much of the file is at the target; what it told of having begun."""
    running = mover.start(order, rate=rate, **more)
    part = part_path(mover.at(b"g"), f"{TAG}-{order.n}", order.attempt)

    def begun() -> Line | None:
        found = [line for line in running.told() if line["r"] == "begin" and line["part"]]
        if mover.subject.id in _SEEN:
            there = len(mover.subject.get(part) or b"")
        else:
            there = max((line["moved"] for line in running.told() if line["r"] == "move"), default=0)
        assert running.process.poll() is None, running.told()
        return found[-1] if found and there >= share * _SIZE else None

    line = wait_until(begun, why="so much of it is there", see=running.told)
    running.kill()
    return line


@where(only=ALL)
def test_interrupted_twice_and_gone_on_with(mover: Mover, tmp_path: Path, settings: Any) -> None:
    """From a folder of this machine, so that all of it passes here. Catches a copy that begins anew each time
    although its storage can go on, a part that stays, a wrong whole."""
    data = content(_SIZE)
    (tmp_path / "f").write_bytes(data)
    settings.GANTRY_LOCAL_SITES = [*settings.GANTRY_LOCAL_SITES, str(tmp_path)]
    source = Reach(protocol=Protocol.LOCAL, path=str(tmp_path), site="source")
    first = Order(n=1, act="COPY", src="/f", dst=mover.at(b"g").decode())
    begun = interrupted(mover, first, 0.6, 2 * MIB, source=source)
    assert begun["size"] == _SIZE
    assert mover.get(b"g") is None
    version = begun["version"]
    second = replace(first, attempt=2, part=1, version=version)
    # What is gone on with has little left: slowly. The others begin anew, and tell once a second how far.
    share, rate = 0.8 if mover.subject.id in _SEEN else 0.6, MIB if mover.subject.id in _ANEW else MIB // 2
    assert interrupted(mover, second, share, rate, source=source)["version"] == version
    assert mover.get(b"g") is None
    third = replace(first, attempt=3, part=2, version=version, last=True)
    log = mover.run(third, source=source).done()["log"]
    assert mover.get(b"g") == data
    assert mover.names() == {b"g"}
    at = re.search(r"gone on at byte ([0-9]+)", log)
    if mover.subject.tree().traits.appends:
        assert at, log
    if mover.subject.id in _SEEN:
        assert at, log
        assert int(at[1]) >= 0.8 * _SIZE


@where(only=ALL)
def test_another_source_of_the_same_size(mover: Mover) -> None:
    """Catches a mixture of two files."""
    mover.put(b"f", content(_SIZE), mtime=_OLD)
    running, begun = held(mover, mover.order("COPY", b"f", b"g"))
    running.kill()
    other = content(_SIZE, seed=2)
    mover.put(b"f", other, mtime=_OLD + 7)
    second = mover.order("COPY", b"f", b"g", attempt=2, part=1, version=begun["version"])
    assert "gone on at byte" not in mover.run(second).done()["log"]
    assert mover.get(b"g") == other
    assert mover.names() == {b"f", b"g"}


@where(only=ALL)
@pytest.mark.parametrize("size", [_SIZE, _SIZE // 2], ids=["another", "shorter"])
def test_a_source_that_changes_while_it_is_read(mover: Mover, size: int) -> None:
    """Catches a mixture that is called done, half a file, and a part of it that is gone on with."""
    mover.put(b"f", content(_SIZE), mtime=_OLD)
    running, _ = held(mover, mover.order("COPY", b"f", b"g"), rate=1 << 30)
    other = content(size, seed=2)
    mover.put(b"f", other, mtime=_OLD + 7)
    (mover.home / "hold-1-transfer.in_content.go").touch()
    running.ended().failed(again=True)
    assert mover.names() == {b"f"}
    mover.run(mover.order("COPY", b"f", b"g", attempt=2)).done()
    assert mover.get(b"g") == other


@pytest.mark.parametrize("step", _COPY_STEPS, ids=lambda step: step.partition(".")[2])
def test_killed_at(mover: Mover, step: str) -> None:
    """Catches half a file under its name, work that is done twice, a file that stays beside the target."""
    data = content(300_000)
    mover.put(b"f", data)
    mark = mover.home / "once"
    env = {"GANTRY_CRASH_AT": step, "GANTRY_CRASH_ONCE": str(mark)}
    first = mover.start(mover.order("COPY", b"f", b"to/g"), env=env)
    assert first.process.wait(60) == -signal.SIGKILL
    assert mover.get(b"to/g") in ({data} if step == "transfer.after_commit" else {None})
    end = mover.copy(b"f", b"to/g", attempt=2, part=1, committed=True).done()
    assert mover.get(b"to/g") == data
    assert mover.names(b"to") == {b"g"}
    assert ("found complete" in end["log"]) is (step == "transfer.after_commit")


@pytest.mark.parametrize("known", [False, True], ids=["at first", "once more"])
def test_what_movers_die_of_is_told_before_it_is_tried_again(mover: Mover, known: bool) -> None:
    """They die of it before anything is told as a rule. Catches tries that nobody counts, and never end."""
    mover.put(b"f", b"content")
    env = {"GANTRY_CRASH_AT": "transfer.before_part", "GANTRY_CRASH_ONCE": str(mover.home / "once")}
    orders = [
        mover.order("COPY", b"f", b"g%d" % n, n=n, part=1 if known else None, committed=known) for n in (1, 2)
    ]
    running = mover.start(*orders, streams=1, env=env)
    assert running.process.wait(60) == -signal.SIGKILL
    assert [(line["r"], line["n"]) for line in running.told()] == ([("begin", 1)] if known else [])


@pytest.mark.parametrize("step", TRANSFER_STEPS[7:], ids=lambda step: step.partition(".")[2])
def test_killed_while_changing(mover: Mover, step: str) -> None:
    """Catches an element that fails since its own earlier attempt has done it."""
    act = {"remove": "REMOVE", "rename": "RENAME", "mkdir": "MKDIR"}[step.rpartition("_")[2]]
    mover.put(b"f", b"content")
    src, dst = {"REMOVE": (b"f", b""), "RENAME": (b"f", b"g"), "MKDIR": (b"new", b"")}[act]
    env = {"GANTRY_CRASH_AT": step, "GANTRY_CRASH_ONCE": str(mover.home / "once")}
    assert mover.start(mover.order(act, src, dst), env=env).process.wait(60) == -signal.SIGKILL
    mover.run(mover.order(act, src, dst, attempt=2, committed=True)).done()
    assert mover.names() == {"REMOVE": set(), "RENAME": {b"g"}, "MKDIR": {b"f", b"new"}}[act]


def test_what_is_left_is_swept(mover: Mover) -> None:
    """Catches a part that stays for ever, and a file of somebody else that goes."""
    mover.put(b"f", content(_SIZE))
    mover.put(b".g.part", b"somebody else's")
    running, _ = held(mover, mover.order("COPY", b"f", b"g"))
    running.kill()
    report = mover.run(sweep=(mover.order("COPY", b"f", b"g", part=1),))
    assert (report.code, report.lines) == (0, [])
    assert mover.names() == {b"f", b".g.part"}


@where(only=lambda subject: subject.id in ("local", "swift", "swift-s3"))
@pytest.mark.parametrize("swept", [False, True], ids=["next try", "sweep"])
def test_an_attempt_that_told_nothing_has_taken_a_part_over(mover: Mover, swept: bool) -> None:
    """The second of three was killed before anybody heard how far it was. Catches its part, for ever beside
    the target: it bears neither the name of the one that is known nor the next one's."""
    data = content(_SIZE)
    mover.put(b"f", data, mtime=_OLD)
    order = mover.order("COPY", b"f", b"g")
    for attempt in (1, 2):
        running, _ = held(mover, replace(order, attempt=attempt, part=1 if attempt > 1 else None))
        running.kill()
    third = replace(order, attempt=3, part=1)
    if swept:
        mover.run(sweep=(third,))
    else:
        mover.run(third).done()
        assert mover.get(b"g") == data
    assert mover.names() == ({b"f"} if swept else {b"f", b"g"})


def test_a_last_try_leaves_nothing(mover: Mover) -> None:
    """Catches the part of an earlier attempt beside what failed for good."""
    mover.put(b"f", content(_SIZE))
    running, begun = held(mover, mover.order("COPY", b"f", b"g"))
    running.kill()
    mover.put(b"g", b"somebody else's")
    mover.copy(b"f", b"g", attempt=2, part=1, version=begun["version"], last=True).failed(again=False)
    assert mover.names() == {b"f", b"g"}
    assert mover.get(b"g") == b"somebody else's"


@where(only=ALL)
@pytest.mark.parametrize("last", [False, True], ids=["a try left", "last try"])
def test_told_to_stop(mover: Mover, last: bool) -> None:
    """Catches elements without an end, ends of what was not begun, a part that stays after the last try."""
    mover.put(b"f", content(_SIZE))
    orders = [mover.order("COPY", b"f", b"g%d" % number, number, last=last) for number in (1, 2, 3)]
    running = mover.start(*orders, streams=2, rate=200_000)
    wait_until(
        lambda: {line["n"] for line in running.told() if line["r"] == "begin" and line["part"]} == {1, 2},
        why="two have begun",
        see=running.told,
    )
    running.process.send_signal(signal.SIGTERM)
    report = running.ended()
    assert report.code == 143
    assert set(report.ends) == {1, 2}
    assert all(not end["ok"] and "cancelled" in end["log"] for end in report.ends.values())
    kept = {end["n"] for end in report.ends.values() if end.get("part")}
    assert not mover.names() & {b"g1", b"g2", b"g3"}
    if mover.subject.id == "local":
        assert len(kept) == len(mover.parts()) == (0 if last else 2)
        assert mover.names() - mover.parts() == {b"f"}


def test_told_to_stop_while_a_storage_hangs(mover: Mover) -> None:
    """Catches a mover that waits for a thread which does not come back."""
    mover.put(b"f", content(_SIZE))
    running, _ = held(mover, mover.order("COPY", b"f", b"g"))
    running.process.send_signal(signal.SIGTERM)
    report = running.ended()
    assert (report.code, report.end["ok"], report.end["part"]) == (143, False, True)


def test_told_to_stop_while_it_becomes_visible(mover: Mover) -> None:
    """Catches an end that is told of what may be visible or not: the next attempt has to look."""
    mover.put(b"f", content(300_000))
    mark = mover.home / "once"
    env = {"GANTRY_CRASH_ONCE": str(mark), "GANTRY_CRASH_HOW": "hold"}
    env["GANTRY_CRASH_AT"] = "transfer.after_commit"
    running = mover.start(mover.order("COPY", b"f", b"g"), env=env)
    wait_until(mark.exists, why="it is visible")
    running.process.send_signal(signal.SIGTERM)
    report = running.ended()
    assert (report.code, report.ends) == (143, {})
    assert mover.get(b"g") is not None


def test_progress_is_told(mover: Mover) -> None:
    mover.put(b"f", content(_SIZE))
    running = mover.start(mover.order("COPY", b"f", b"g"), rate=3 * MIB)
    report = running.ended()
    report.done()
    moves = [line for line in report.lines if line["r"] == "move"]
    assert moves
    assert all(0 <= line["moved"] <= _SIZE and line["elapsed"] > 0 for line in moves)
    assert report.lines[0]["r"] == "begin"


@where(only=lambda subject: subject.id == "local")
def test_more_than_fits(mover: Mover, subject: Subject, tmp_path: Path) -> None:
    """Catches a disk that is filled although it was known that this would not do."""
    path = subject.real(mover.at(b"f"))  # type: ignore[attr-defined]
    with open(path, "wb") as file:  # noqa: PTH123
        file.truncate(1 << 43)
    end = mover.copy(b"f", b"g").failed(again=True)
    assert "do not fit" in end["log"]
    assert mover.names() == {b"f"}
