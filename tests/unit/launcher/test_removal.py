"""Folders that a command has filled go, whatever it has put there; what cannot go is alone in staying."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.nested import nest
from workers.launcher.removal import NotRemovedError, flags_of, remove, set_flags

PROJECT = Path(__file__).resolve().parents[3]
ROOT = os.geteuid() == 0
IMMUTABLE, APPEND_ONLY = 0x10, 0x20


def _may_lock() -> bool:
    """Root of a machine (not of every container), on a file system that has flags."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            set_flags(descriptor, flags_of(descriptor) | IMMUTABLE)
            set_flags(descriptor, flags_of(descriptor) & ~IMMUTABLE)
        except OSError:
            return False
        finally:
            os.close(descriptor)
    return True


@contextmanager
def ordinary() -> Iterator[None]:
    """As a user whom rights stop, which is what this process is for the moment."""
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(uid)


class Place:
    """A run's folder ``run``, to be filled, beside ``other``, which is nobody's to touch."""

    def __init__(self, above: str = "/tmp") -> None:
        self.base = Path(tempfile.mkdtemp(prefix="gr", dir=above))
        self.base.chmod(0o777)
        self.other = self.base / "other"
        (self.other / "inner").mkdir(parents=True)
        (self.other / "inner" / "file").write_text("mine")
        self.runs = self.base / "runs"
        self.runs.mkdir()
        if ROOT:
            os.chown(self.runs, 65_534, 65_534)
        self.runs.chmod(0o711)
        self.run = self.runs / "17-1"
        self.before = self._seen()

    def _seen(self) -> list[tuple[str, int, int, int]]:
        found = [self.runs, *sorted(self.other.rglob("*"))]
        return [(str(path), path.stat().st_mode, path.stat().st_ino, path.stat().st_nlink) for path in found]

    def assert_gone(self) -> None:
        """The run's folder and nothing else."""
        assert list(self.runs.iterdir()) == []
        assert self._seen() == self.before
        assert (self.other / "inner" / "file").read_text() == "mine"

    def close(self) -> None:
        shutil.rmtree(self.base)


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.close()


# --- any tree -------------------------------------------------------------------------------------------

_NAMES = st.sampled_from(
    [b"a", b"b", b"-rf", b"\xff", b" ", b"new\nline", b"a\\'\"*", "é".encode(), b"x" * 255]
)
_MODES = st.sampled_from([0o700, 0o000, 0o100, 0o200, 0o400, 0o500, 0o600, 0o1777])
_LEAVES = st.one_of(
    st.sampled_from(["file", "fifo", "socket"]),
    st.sampled_from(["link:..", "link:/nowhere", "link:OTHER", "link:OTHER/inner/file"]),
)
_TREES: st.SearchStrategy[Any] = st.recursive(
    _LEAVES,
    lambda inner: st.tuples(_MODES, st.dictionaries(_NAMES, inner, max_size=4)),
    max_leaves=12,
)


def build(at: Path, tree: Any, other: Path) -> None:
    if isinstance(tree, tuple):
        mode, inside = tree
        at.mkdir()
        for name, inner in inside.items():
            build(at / os.fsdecode(name), inner, other)
        at.chmod(mode)
    elif tree == "fifo":
        os.mkfifo(at)
    elif tree == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"{other}/../socket")  # its address has to be short
        (other.parent / "socket").rename(at)
    elif tree.startswith("link:"):
        at.symlink_to(tree.removeprefix("link:").replace("OTHER", str(other)))
    else:
        at.touch(0o000)


@settings(database=None, deadline=None)  # an ordinary user who runs this has no folder for one
@given(tree=_TREES, as_ordinary=st.booleans())
def test_whatever_a_command_leaves_goes_and_nothing_else(tree: Any, as_ordinary: bool) -> None:
    """Names of any bytes, closed folders, links to elsewhere, pipes and sockets; as root and as a user."""
    place = Place()
    try:
        with ordinary() if as_ordinary or not ROOT else _as_it_is():
            build(place.run, tree, place.other)
            remove(str(place.run))
        place.assert_gone()
    finally:
        place.close()


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def test_no_depth_is_too_deep() -> None:
    """Deeper than Python recurses, than a path may be long and than there are descriptors."""
    place = Place("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp")  # some disks take a minute
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    nest(place.run, 20_000)
    nest(place.run / "beside", 1_200, "x")
    for number in range(30):
        (place.run / "d" / f"more{number}" / "inner").mkdir(parents=True)
    most = max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 8
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        remove(str(place.run))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    place.assert_gone()
    place.close()


def test_deep_and_closed_as_an_ordinary_user(place: Place) -> None:
    with ordinary():
        nest(place.run, 1_100)
        (place.run / "d" / "d").chmod(0o500)
        (place.run / "d").chmod(0o000)
        place.run.chmod(0o400)
        remove(str(place.run))
    place.assert_gone()


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("../other")])
def test_what_is_no_folder_goes_itself(place: Place, make: Callable[[Path], None]) -> None:
    make(place.run)
    remove(str(place.run))
    place.assert_gone()
    remove(str(place.run))
    remove(str(place.run / "nor" / "this"))


# --- while others are at it -----------------------------------------------------------------------------


def swapped_at(place: Place, what: str, at: int, aside: Path) -> int:
    """Remove the run's folder, and before call number ``at`` of the system take ``what`` of it aside: a link
    has its place then. Returns how many calls there were."""
    (place.run / "a" / "b" / "c").mkdir(parents=True)
    (place.run / "a" / "b" / "file").touch()
    inode, calls = (place.run / what).stat().st_ino, 0

    def swap() -> None:
        for path in (place.run, *place.run.rglob("*")):
            if os.path.lexists(path) and path.lstat().st_ino == inode:
                path.rename(aside)
                path.symlink_to(place.other)
                return

    def watch(frame: FrameType, event: str, called: Any) -> None:
        nonlocal calls
        ours = frame.f_globals["__name__"] == remove.__module__
        if ours and event == "c_call" and getattr(called, "__module__", "") == os.open.__module__:
            calls += 1
            if calls == at:
                swap()

    sys.setprofile(watch)
    try:
        remove(str(place.run))
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("what", [".", "a", "a/b"])
def test_no_link_is_followed_whenever_it_takes_a_folders_place(place: Place, what: str) -> None:
    """Catches a look that is taken for what is opened or emptied afterwards."""
    aside, at, calls = place.base / "aside", 0, 0
    while at <= calls:
        calls = swapped_at(place, what, at, aside)
        place.assert_gone()
        remove(str(aside))
        at += 1
    assert at > 10


def test_two_at_once_hinder_each_other_only_once(place: Place) -> None:
    """The thread that has ended a run, and the search for orphans."""
    nest(place.run, 300)
    said: list[str] = []

    def clear() -> None:
        try:
            remove(str(place.run))
        except NotRemovedError as error:
            said.append(str(error))

    threads = [threading.Thread(target=clear) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) < 2, said
    place.assert_gone()


# --- what cannot be removed -----------------------------------------------------------------------------


#: Removes a folder; tells what was said, and which paths are left below it.
_REMOVE = """
import json, os, sys
from workers.launcher.removal import NotRemovedError, remove
said = ""
try:
    remove(sys.argv[1])
except NotRemovedError as error:
    said = str(error)
left = [
    os.path.relpath(os.path.join(at, name), sys.argv[1])
    for at, folders, files in os.walk(sys.argv[1])
    for name in folders + files
]
print(json.dumps([said, left]))
"""


def among_mounts(folder: Path, mounts: str) -> tuple[str, list[str]]:
    """Remove a folder where these mounts are: (what was said, what is left below it)."""
    done = subprocess.run(
        [
            *("unshare", "--mount", *([] if ROOT else ["--map-root-user"])),
            *("sh", "-ec", f'{mounts}; exec "$@"', "sh"),
            *(sys.executable, "-c", _REMOVE, str(folder)),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    said, left = json.loads(done.stdout)
    return said, left


def test_mounts_are_not_entered(place: Place) -> None:
    """Another disk, and another folder of the same one; what is around them goes."""
    for name in ("a/b/disk", "a/folder", "a/c/d"):
        (place.run / name).mkdir(parents=True)
    disk = place.run / "a/b/disk"
    said, left = among_mounts(
        place.run,
        f"mount -t tmpfs none {disk}; touch {disk}/kept; mount --bind {place.other} {place.run}/a/folder",
    )
    assert said.startswith(f"{place.run}/.removing-")
    assert said.endswith(
        " cannot be removed: something is mounted there, or the kernel uses it: unmount it (findmnt, umount)"
        " (and 1 more)"
    )
    names = {path.rpartition("/")[2] for path in left}
    assert {name for name in names if not name.startswith(".removing-")} == {
        *("disk", "kept"),
        *("folder", "inner", "file"),
    }
    remove(str(place.run))  # here nothing is mounted
    place.assert_gone()


def test_a_mount_in_the_place_of_the_folder_itself(place: Place) -> None:
    place.run.mkdir()
    said, left = among_mounts(place.run, f"mount --bind {place.other} {place.run}")
    assert said.startswith(f"{place.run} cannot be removed: something is mounted there")
    assert sorted(left) == ["inner", "inner/file"]
    remove(str(place.run))
    place.assert_gone()


if ROOT:

    def test_folders_that_cannot_be_moved_are_emptied_where_they_are(place: Place) -> None:
        """Those of an overlay's lower layers."""
        lower, space = place.base / "lower", place.base / "space"
        (lower / "17-1" / "a" / "b" / "c").mkdir(parents=True)
        (lower / "17-1" / "a" / "b" / "file").touch()
        (lower / "17-1" / "e").mkdir()
        space.mkdir()
        layers = f"lowerdir={lower},upperdir={space}/upper,workdir={space}/work,redirect_dir=off"
        said, left = among_mounts(
            place.run,
            f"mount -t tmpfs none {space}; mkdir {space}/upper {space}/work;"
            f" mount -t overlay -o {layers} none {place.runs}; test -e {place.run}/a/b/file",
        )
        assert (said, left) == ("", [])
        assert (lower / "17-1" / "a" / "b" / "file").exists()
        place.assert_gone()

    def test_what_an_ordinary_worker_may_not_remove_is_alone_in_staying(place: Place) -> None:
        """What a container's root has left: told with its path, whatever bytes that has, and a remedy."""
        for name in (b"a/ours\xff\n\x1b", b"a/theirs\xff\n\x1b/inner", b"b/c"):
            (place.run / os.fsdecode(name)).mkdir(parents=True)
        for path in (place.run, *place.run.rglob("*")):
            if "theirs" not in str(path):
                os.chown(path, 65_534, 65_534)
        with ordinary(), pytest.raises(NotRemovedError) as caught:
            remove(str(place.run))
        (kept,) = [path for path in place.run.rglob("*") if path.name == "inner"]
        said = str(caught.value)
        assert said.startswith(f"{place.run}/.removing-")
        assert said.endswith(
            "cannot be removed: user 65534 may not: remove it as root (if lsattr shows i or a: chattr -R -ia"
            " first)"
        )
        assert "\\xff" in said
        assert said.isprintable()
        assert said.encode()
        assert {path.name for path in place.run.rglob("*") if not path.name.startswith(".rem")} <= {
            *("inner", kept.parent.name)
        }
        remove(str(place.run))
        place.assert_gone()


if _may_lock():

    def lock(path: Path, flag: int) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        set_flags(descriptor, flags_of(descriptor) | flag)
        os.close(descriptor)

    @pytest.mark.parametrize("flag", [IMMUTABLE, APPEND_ONLY])
    def test_flags_that_stop_even_root_are_taken_away(place: Place, flag: int) -> None:
        for name in ("a/b", "a/empty", "c"):
            (place.run / name).mkdir(parents=True)
        for name in ("a/file", "a/b/file"):
            (place.run / name).touch()
        for name in ("a/file", "a/b/file", "a/b", "a/empty", "a", "c", "."):
            lock(place.run / name, flag)
        remove(str(place.run))
        place.assert_gone()

    def test_a_file_with_a_second_name_keeps_its_flags(place: Place) -> None:
        """That name may be anybody's: only a person can know."""
        (place.run / "a").mkdir(parents=True)
        (place.run / "a" / "file").touch()
        (place.run / "a" / "deep" / "er").mkdir(parents=True)
        second = place.base / "second"
        second.hardlink_to(place.run / "a" / "file")
        lock(second, IMMUTABLE)
        with pytest.raises(NotRemovedError, match=r"/file cannot be removed: user 0 may not.*chattr -R -ia"):
            remove(str(place.run))
        (kept,) = [path for path in place.run.rglob("*") if path.is_file()]
        assert len(list(place.run.rglob("*"))) == 2, "what is around it is gone"
        descriptor = os.open(kept, os.O_RDONLY)
        assert flags_of(descriptor) & IMMUTABLE
        set_flags(descriptor, flags_of(descriptor) & ~IMMUTABLE)
        os.close(descriptor)
        remove(str(place.run))
        second.unlink()
        place.assert_gone()
