"""Nothing leaves a LOCAL site: links, races that swap a folder for a link, parts that others have put."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tests.unit.storage.trees.conftest import Site
from workers.storage.trees.base import Keeping, Part, StorageFailed, Trouble
from workers.storage.trees.parts import part_name

_EXCHANGE = 2  # RENAME_EXCHANGE
_HERE = -100  # AT_FDCWD
_PART = Part("t")
_libc = ctypes.CDLL(None, use_errno=True)


def _read(site: Site, path: bytes) -> bytes:
    with site.tree.read(path) as pieces:
        return b"".join(pieces)


def _write(site: Site, path: bytes, data: bytes, part: Part = _PART) -> None:
    receiving = site.tree.receive(path, part, len(data))
    try:
        receiving.send(data)
        receiving.finish()
        receiving.commit(overwrite=True, keeping=Keeping(mtime_ns=10**18, mode=0o600))
    except StorageFailed:
        receiving.discard()
        raise
    finally:
        receiving.close()


def _trouble(what: Callable[[], object]) -> Trouble:
    with pytest.raises(StorageFailed) as caught:
        what()
    return caught.value.trouble


def test_links_lead_where_they_may(site: Site) -> None:
    (site.path / "a" / "b").mkdir(parents=True)
    (site.path / "file").write_bytes(b"content")
    (site.path / "a" / "up").symlink_to("../file")
    (site.path / "a" / "absolute").symlink_to(site.path / "file")
    (site.path / "a" / "b" / "chain").symlink_to("../absolute")
    (site.path / "folder").symlink_to(site.path / "a")
    for path in (b"/a/up", b"/a/absolute", b"/a/b/chain", b"/folder/up", b"/folder/b/chain"):
        assert _read(site, path) == b"content"
        assert site.tree.stat(path).size == 7
    _write(site, b"/folder/b/new", b"new")
    assert (site.path / "a" / "b" / "new").read_bytes() == b"new"


def test_links_that_lead_out_are_refused(site: Site) -> None:
    (site.outside / "file").write_bytes(b"not for you")
    (site.path / "a").mkdir()
    (site.path / "a" / "relative").symlink_to("../../outside/file")
    (site.path / "absolute").symlink_to(site.outside / "file")
    (site.path / "out").symlink_to(site.outside)
    (site.path / "chain").symlink_to("out")
    (site.path / "process").symlink_to("/proc/self/root")
    for path in (b"/a/relative", b"/absolute", b"/out/file", b"/chain/file", b"/process/etc/passwd"):
        assert _trouble(partial(_read, site, path)) is Trouble.DENIED
        assert _trouble(partial(site.tree.stat, path)) is Trouble.DENIED
        assert _trouble(partial(site.tree.checksum, path, "md5")) is Trouble.DENIED
    assert _trouble(lambda: _write(site, b"/out/new", b"new")) is Trouble.DENIED
    assert _trouble(lambda: site.tree.discard(b"/out/new", Part("t"))) is Trouble.DENIED
    assert _trouble(lambda: site.tree.free_space(b"/out")) is Trouble.DENIED
    _write(site, b"/absolute", b"new")  # in the link's place, not where it leads
    assert (site.path / "absolute").read_bytes() == b"new"
    assert not (site.path / "absolute").is_symlink()
    assert {path.name: path.read_bytes() for path in site.outside.iterdir()} == {"file": b"not for you"}


def test_a_loop_of_links(site: Site) -> None:
    (site.path / "one").symlink_to("two")
    (site.path / "two").symlink_to("one")
    assert _trouble(lambda: site.tree.stat(b"/one")) is Trouble.DENIED
    assert _trouble(lambda: _read(site, b"/one/file")) is Trouble.DENIED


@contextmanager
def _swapping(one: Path, other: Path) -> Iterator[Callable[[], int]]:
    """These two change places all the time; tells how often they have."""
    count, end = 0, threading.Event()

    def swap() -> None:
        nonlocal count
        first, second = os.fsencode(one), os.fsencode(other)
        while not end.is_set() or count % 2:
            assert _libc.renameat2(_HERE, first, _HERE, second, _EXCHANGE) == 0
            count += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield lambda: count
    finally:
        end.set()
        thread.join()


def test_a_folder_that_is_swapped_for_a_link_all_the_time(site: Site) -> None:
    """Each operation takes place in the folder or is refused, whenever the swap comes."""
    folder, link, kept = site.path / "d", site.path / "l", {"f", "inner"}
    folder.mkdir()
    link.symlink_to(site.outside)
    (site.outside / "f").write_bytes(b"not for you")
    (site.outside / "inner").mkdir()
    done, refused = dict.fromkeys(range(7), 0), 0

    def often(swaps: Callable[[], int]) -> bool:
        nonlocal refused
        tries: tuple[Callable[[], object], ...] = (
            lambda: _write(site, b"/d/f", b"ours"),
            lambda: _read(site, b"/d/f"),
            lambda: {entry.name for entry in site.tree.scan(b"/d")},
            lambda: site.tree.rename(b"/d/f", b"/d/g", overwrite=True),
            lambda: site.tree.remove(b"/d/g"),
            lambda: site.tree.mkdir(b"/d/made", 0o700),
            lambda: site.tree.remove_folder(b"/d/made"),
        )
        for number, what in enumerate(tries):
            try:
                found = what()
            except StorageFailed:
                refused += 1
                continue
            done[number] += 1
            assert found in (None, b"ours") or (isinstance(found, set) and b"inner" not in found)
        return min(done.values()) >= 20 and refused >= 100 and swaps() >= 1000

    with _swapping(folder, link) as swaps:
        wait_until(
            lambda: often(swaps),
            every_s=0,
            why="each has been done and refused often",
            see=lambda: (done, refused, swaps()),
        )
    assert {path.name for path in site.outside.iterdir()} == kept
    assert (site.outside / "f").read_bytes() == b"not for you"
    assert (site.outside / "f").stat().st_mode & 0o777 != 0o600
    assert list((site.outside / "inner").iterdir()) == []


def test_a_part_that_somebody_else_has_put(site: Site) -> None:
    """A link or a second name under the part's name: what it leads to is not written, resumed or not."""
    victim = site.outside / "victim"
    victim.write_bytes(b"not for you")
    part = site.path / os.fsdecode(part_name(b"file", "t", 1))
    for plant in (part.symlink_to, part.hardlink_to):
        for taken in (Part("t"), Part("t", 2, before=1), Part("t", 2, before=1, resume=True)):
            part.unlink(missing_ok=True)
            plant(victim)
            _write(site, b"/file", b"content of ours", taken)
            assert victim.read_bytes() == b"not for you"
            assert victim.stat().st_mode & 0o777 != 0o600
            assert (site.path / "file").read_bytes() == b"content of ours"
            assert {path.name for path in site.path.iterdir()} <= {"file", part.name}
