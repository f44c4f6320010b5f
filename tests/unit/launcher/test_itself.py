"""The launcher as a process: alone in its folder, private, bounded, self-contained.

Every test runs in each mode of isolation that this user can have.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path

from tests.support.nested import nest
from tests.unit.launcher.launching import ROOT, Node, eventually, kill, node
from workers import launcher
from workers.launcher import control
from workers.launcher.removal import remove
from workers.runtimes.launched.client import LauncherUnavailableError
from workers.runtimes.launched.records import fresh_environment

__all__ = ["node"]  # the fixture

PROGRAM = Path(launcher.__file__).with_name("__main__.py")


def test_a_second_launcher_for_the_folder_refuses(node: Node) -> None:
    pid = node.client.ensure().pid
    second = subprocess.run(
        [sys.executable, "-I", "-S", str(PROGRAM), str(node.control)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (second.returncode, second.stderr) == (75, f"launcher: another launcher holds {node.control}\n")
    assert node.client.ensure().pid == pid


def test_wrong_options_are_explained() -> None:
    for arguments, message in (
        ([], "is missing"),
        (["/tmp/x", "--fly", "high"], "unknown option: --fly high"),
    ):
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(PROGRAM), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 64
        assert message in done.stderr


def test_it_imports_nothing_but_the_standard_library(node: Node) -> None:
    loaded = set()
    for source in PROGRAM.parent.glob("*.py"):
        loaded |= set(re.findall(r"^\s*(?:from|import) ([a-zA-Z_]+)", source.read_text(), re.MULTILINE))
    assert loaded <= set(sys.stdlib_module_names)


def test_folder_and_socket_are_private(node: Node) -> None:
    name = node.start("true")
    node.end(name)
    modes = {
        path: (node.control / path).stat().st_mode & 0o777
        for path in (".", "launcher.sock", "launcher.log", "runs", f"runs/{name}", f"runs/{name}/exit")
    }
    assert list(modes.values()) == [0o700, 0o600, 0o600, 0o700, 0o700, 0o600]


def test_hello(node: Node) -> None:
    hello = node.client.ensure()
    assert (hello.isolation, hello.can_start, hello.boot_id) == (node.mode, True, control.boot_id())
    assert (hello.live, hello.renewed_age) == ((), None)


def test_a_long_path_of_the_folder(node: Node) -> None:
    node.control = node.base / ("long" * 30) / "c"
    node.client = node.another_client()
    assert node.run("echo far")[1] == "far\n"


def test_the_log_is_bounded(node: Node) -> None:
    node.client.ensure()
    log = node.control / "launcher.log"
    with log.open("a") as file:
        file.write("x" * 1_100_000)
    eventually((node.control / "launcher.log.1").exists, "the log was not turned")
    eventually(log.exists, "no new log was begun")  # a moment after the old one was turned
    assert log.stat().st_size < 1000


def test_whatever_lies_in_its_way_it_starts(node: Node) -> None:
    """Catches a launcher that dies at its start of what a command has put where it rehearses."""
    node.control.mkdir(mode=0o700)
    nest(node.control / "rehearsal", 1_100)

    def starts() -> bool:
        with contextlib.suppress(LauncherUnavailableError):  # some disks need seconds for that many folders
            return node.client.ensure().can_start
        return False

    try:
        eventually(starts, "the launcher does not start")
    finally:
        remove(str(node.control / "rehearsal"))


def test_an_attempt_out_of_order_keeps_no_other_from_being_looked_after(node: Node) -> None:
    """Catches a launcher that dies of it at its start, and one whose rounds all end at it, guard or not."""
    (node.control / "runs" / "99-1" / "started").mkdir(parents=True)  # where a file should be
    broken = node.start("sleep 60")
    other = node.start("until test -e go; do sleep 0.1; done")
    shim = node.shim(broken)
    node.kill_launcher()
    assert set(node.client.ensure().live) == {broken, other}
    started = node.control / "runs" / broken / "started"
    started.unlink()
    started.mkdir()
    kill(shim)
    (node.scratch(other) / "go").touch()
    eventually(lambda: other in [name for name, _ in node.ended], "the other's end is not told")
    for path in (started, node.control / "runs" / "99-1"):
        remove(str(path))


if ROOT:  # an ordinary user cannot look into a process that hides its memory

    def test_no_file_stays_open(node: Node) -> None:
        files = Path(f"/proc/{node.client.ensure().pid}/fd")
        for _ in range(5):
            node.run("true")
        before = len(list(files.iterdir()))
        for _ in range(40):
            node.run("true")
        eventually(lambda: len(list(files.iterdir())) <= before, "files stay open")


def test_fresh_environment_may_be_replaced() -> None:
    made = fresh_environment(Path("/s"), {"HOME": "/h", "A": "b"})
    assert made["HOME"] == "/h"
    assert made["TMPDIR"] == "/s/tmp"
    assert set(made) == {"PATH", "HOME", "TMPDIR", "A"}
