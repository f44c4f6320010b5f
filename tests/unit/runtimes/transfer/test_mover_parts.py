"""Paths, rates, what waits on disk, the report: without a storage."""

from __future__ import annotations

import json
import re
import threading
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runtimes.transfer.mover import paths
from workers.runtimes.transfer.mover.bounds import Bucket, Space
from workers.runtimes.transfer.mover.changing import mode_of
from workers.runtimes.transfer.mover.element import Element, Refused
from workers.runtimes.transfer.mover.reporting import Reporter
from workers.runtimes.transfer.mover.spool import Told, Waiting
from workers.runtimes.transfer.runtime import SETTINGS
from workers.storage.trees.base import Plain, StorageFailed
from workers.vocabulary.transfers.names import escape, name_from_wire
from workers.vocabulary.transfers.orders import Order

ROOT = Path(__file__).resolve().parents[4]


class Somewhere(Plain):
    default_path = b"/home/me"

    def free_space(self, path: bytes) -> int | None:
        return 100


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (b"/a/b", b"/a/b"),
        (b"/", b"/"),
        (b"~", b"/home/me"),
        (b"~/a/", b"/home/me/a"),
        (b"~a", b"/default/~a"),
        (b"a//b/./c", b"/default/a/b/c"),
        (b"a/../b", b"/default/b"),
    ],
)
def test_where_a_path_is(asked: bytes, found: bytes) -> None:
    assert paths.located(asked, Somewhere(), "/default") == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "parent", "last"),
    [
        (b"/f", b"/", b"f"),
        (b"f", b"", b"f"),
        (b"a/f", b"a", b"f"),
        (b"/a/f/", b"/a", b"f"),
        (b"~/f", b"~", b"f"),
    ],
)
def test_the_parent_of_a_path(path: bytes, parent: bytes, last: bytes) -> None:
    assert (paths.parent(path), paths.last(path)) == (parent, last)
    assert paths.below(parent, last) == paths.trimmed(path)


def test_so_many_bytes_per_second() -> None:
    """Catches a rate that holds for each thread alone, and a burst after a long silence."""
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    bucket = Bucket(1000, wait, lambda: now[0])
    for _ in range(10):
        bucket.take(1000)
    assert now[0] == pytest.approx(10, abs=1)
    now[0] = 1000.0
    for _ in range(10):
        bucket.take(1000)
    assert now[0] == pytest.approx(1010, abs=1)
    Bucket(None, wait).take(1 << 60)


def test_free_space_is_not_given_twice() -> None:
    space = Space(Somewhere())  # type: ignore[arg-type]
    space.take(b"/a", 60)
    with pytest.raises(StorageFailed, match="do not fit"):
        space.take(b"/b", 101)
    space.take(b"/c", 100)


@given(st.lists(st.binary(max_size=5), max_size=60), st.integers(min_value=1, max_value=9))
def test_folders_that_wait(names: list[bytes], most: int) -> None:
    """Catches one that is lost on its way to disk or back, or that comes twice."""
    waiting = Waiting("/tmp", most)
    for number, name in enumerate(names):
        waiting.push((name, name, number))
    found = []
    while (item := waiting.pop()) is not None:
        found.append(item)
    assert found == [(name, name, number) for number, name in reversed(list(enumerate(names)))]
    waiting.close()


@pytest.mark.parametrize("longest_first", [False, True])
def test_folders_are_told_by_the_length_of_their_paths(tmp_path: Path, *, longest_first: bool) -> None:
    told = Told(str(tmp_path))
    for word in (b"aa", b"b", b"cccc", b"dd", b"e"):
        told.add(BytesIO(word), len(word), len(word))
    order = [b"b", b"e", b"aa", b"dd", b"cccc"] if not longest_first else [b"cccc", b"aa", b"dd", b"b", b"e"]
    assert b"".join(told.in_order(longest_first=longest_first)) == b"".join(order)
    told.close()


@given(st.binary())
def test_every_name_can_be_escaped(name: bytes) -> None:
    assert name_from_wire(escape(name), escaped=True) == name


def test_the_report_of_many_threads(tmp_path: Path) -> None:
    """Catches lines that are mixed, lost or doubled; a second end; a secret in a log."""
    file = (tmp_path / "report").open("ab", buffering=0)
    report = Reporter(file.fileno(), ["S3kr1t", "no"])

    def some(first: int) -> None:
        for number in range(first, first + 300):
            element = Element(Order(n=number, act="COPY", src="/a"))
            report.begin(element)
            element.say(f"no S3kr1t {'x' * (number % 200)}")
            assert report.end(element, ok=True, code=0)
            assert not report.end(element, ok=False, code=1)

    threads = [threading.Thread(target=some, args=(number * 300,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.close()
    lines = [json.loads(line) for line in (tmp_path / "report").read_bytes().splitlines()]
    file.close()
    assert sorted(line["n"] for line in lines) == list(range(1200))
    assert all(line["log"].startswith("no *** ") and line["ok"] for line in lines)


def test_what_is_being_made_visible_is_ended_by_nobody_else(tmp_path: Path) -> None:
    file = (tmp_path / "report").open("ab", buffering=0)
    report = Reporter(file.fileno(), [])
    one, other = (Element(Order(n=n, act="COPY", src="/a")) for n in (1, 2))
    report.begin(one)
    report.begin(other)
    assert report.commit(one)
    assert report.cut_off() == [other]
    report.end(other, ok=False, code=125)
    assert not report.commit(other)
    report.close()
    file.close()


@pytest.mark.parametrize(("option", "mode"), [(None, None), ("755", 0o755), (750, 0o750), ("0700", 0o700)])
def test_permissions(option: object, mode: int | None) -> None:
    assert mode_of(option) == mode


@pytest.mark.parametrize("option", ["rwx", "77777", -1, "8"])
def test_permissions_that_are_none(option: object) -> None:
    with pytest.raises(Refused, match="octal"):
        mode_of(option)


def test_a_mover_gets_every_setting_that_its_trees_ask_for() -> None:
    """Catches a setting that only a worker knows: the mover has no config of its own."""
    asked = {
        name
        for folder in ("storage", "addresses")
        for path in (ROOT / "workers" / folder).rglob("*.py")
        for name in re.findall(r"\bsettings\.([A-Z_]+)", path.read_text())
    }
    assert asked <= set(SETTINGS)
