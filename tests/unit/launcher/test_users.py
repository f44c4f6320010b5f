"""Runs are separated from one another and from the node; and the launcher also serves an ordinary user.

As root: the separation, and all other tests of the launcher once more as a user that has no account. As an
ordinary user there is nothing to separate, so only what can be held then is here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.launcher.launching import ROOT, Node, eventually, node
from workers.launcher import control
from workers.launcher.uids import Uids
from workers.runtimes.launched.client import LauncherError

pytestmark = pytest.mark.invariant

__all__ = ["node"]  # the fixture

#: A user without account of this process alone: what others' processes are counts for its limits.
NOBODY = 500_000 + os.getpid()
PROJECT = Path(__file__).resolve().parents[3]


def uid_of(node: Node, name: str) -> int:
    started = node.state(name).started
    assert started is not None
    return started.uid


if ROOT:

    def test_every_run_has_a_uid_of_its_own(node: Node) -> None:
        names = [node.start("id -u; id -g; sleep 60") for _ in range(8)]
        uids = [uid_of(node, name) for name in names]
        assert len(set(uids)) == 8
        assert all(200_000 <= uid < 260_000 for uid in uids)
        for name, uid in zip(names, uids, strict=True):
            node.until_written(name, f"{uid}\n{uid}\n")
            assert (node.scratch(name).stat().st_uid, node.scratch(name).stat().st_mode & 0o777) == (
                uid,
                0o700,
            )

    @pytest.mark.parametrize("mode", ["uids", "namespaces"])
    def test_no_command_kills_its_shim_however_soon_it_tries(mode: str) -> None:
        """Its shim was the command's user until its spawn had returned: of 100 such commands 29 killed it."""
        node = Node(mode)
        try:
            requests = [node.request("kill -KILL $PPID; echo alive") for _ in range(60)]
            for request in requests:
                node.client.start(request)
            assert {node.end(request.name).code for request in requests} == {0}
            assert {node.text(request.name) for request in requests} == {"alive\n"}
        finally:
            node.close()

    def test_two_nodes_of_a_machine_share_no_uid(node: Node) -> None:
        other = Node(node.mode)
        try:
            mine = [uid_of(node, node.start("sleep 60")) for _ in range(5)]
            theirs = [uid_of(other, other.start("sleep 60")) for _ in range(5)]
            assert set(mine).isdisjoint(theirs)
        finally:
            other.close()

    def test_a_uid_in_use_is_passed_over(tmp_path: Path) -> None:
        uids = Uids(str(tmp_path), 1_000_000)
        first, lock = uids.claim()
        other = Uids(str(tmp_path / ".."), 1_000_000)
        assert other.hold(first) is None
        assert other.hold(5) is None
        os.close(lock)
        again = other.hold(first)
        assert again is not None
        os.close(again)

    def test_uids_go_on_after_a_restart(node: Node) -> None:
        first = node.start("true")
        node.end(first)
        node.client.quit()
        second = node.start("true")
        node.end(second)
        assert uid_of(node, first) != uid_of(node, second)

    def test_runs_reach_neither_each_other_nor_the_node(node: Node) -> None:
        victim = node.start("echo secret > file; chmod 666 file; chmod 777 .; echo ready; sleep 60")
        node.until_written(victim, "ready")
        node.scratch(victim).chmod(0o700)
        number = node.shim(victim)
        script = f"""
            cat {node.scratch(victim)}/file; ls {node.scratches}
            ls {node.control}; cat {node.control}/launcher.log
            echo x > {node.control}/runs/{victim}/stop; cat {node.control}/runs/{victim}/stdout
            kill -KILL {number}; kill -KILL $PPID; cat /proc/{number}/environ
            echo done
        """
        request = node.request(script)
        assert node.finish(request).code == 0
        # In a mount namespace the folder of all scratch folders shows the run's own one.
        assert node.text(request.name).removeprefix(f"{request.name}\n") == "done\n"
        assert node.state(victim).state == control.RUNNING

    def test_a_set_uid_program_gives_nothing() -> None:
        node = Node("uids")
        try:
            node.client.ensure()
            tool = node.base / "tool"
            shutil.copy("/usr/bin/id", tool)
            tool.chmod(0o4755)
            assert node.run(f"{tool} -u")[1].strip() != "0"
        finally:
            node.close()

    def test_shared_folders_processes_and_memory_are_private() -> None:
        node = Node("namespaces")
        try:
            first = node.request(
                "for d in /tmp /var/tmp /dev/shm; do echo 1 > $d/gantry-test-left || exit 1; done; "
                "ipcmk -M 4096 > /dev/null; ipcs -m | grep -c 0x; echo ready; sleep 60"
            )
            node.client.start(first)
            node.until_written(first.name, "ready")
            _, text = node.run("ls /tmp /var/tmp /dev/shm; ipcs -m | grep -c 0x; ls -d /proc/[0-9]*")
            assert "gantry-test-left" not in text
            seen = [line for line in text.split() if line.startswith("/proc/")]
            assert len(seen) <= 3
            for folder in ("/tmp", "/var/tmp", "/dev/shm"):
                assert not Path(folder, "gantry-test-left").exists()
            assert "0x" not in subprocess.run(
                ["ipcs", "-m", "-p"], capture_output=True, text=True, check=True
            ).stdout.replace("0x00000000", "")
            mounts = Path("/proc/self/mountinfo").read_text()
            assert str(node.base) not in mounts
        finally:
            node.close()

    def test_what_needs_namespaces_is_not_started_without() -> None:
        """Catches a launcher that came back with less than its node has claimed."""
        node = Node("uids")
        try:
            with pytest.raises(LauncherError, match="no namespaces for commands: switched off") as refused:
                node.client.start(replace(node.request("true"), isolation="namespaces"))
            assert refused.value.code == "isolation"
            assert node.finish(node.request("true")).code == 0
        finally:
            node.close()

    def test_the_working_folder_is_not_found_again_below_tmpdir() -> None:
        node = Node("namespaces")
        try:
            request = node.request(
                'echo kept > kept; rm -rf "$TMPDIR"/* "$TMPDIR"/.[a-z]*; cat "$HOME/kept"; pwd'
            )
            assert node.finish(request).code == 0
            assert node.text(request.name) == f"kept\n{node.scratch(request.name)}\n"
        finally:
            node.close()

    def test_a_folder_that_the_run_cannot_reach_is_explained() -> None:
        node = Node("uids")
        try:
            node.base.chmod(0o700)
            request = node.request("true")
            for _ in range(10):
                with pytest.raises(LauncherError, match="must be searchable") as refused:
                    node.client.start(request)
                assert str(node.scratch(request.name)) in str(refused.value)
                assert node.state(request.name).state == control.PREPARED
            node.base.chmod(0o711)
            assert node.finish(request).code == 0
        finally:
            node.close()

    @pytest.fixture
    def reachable() -> Iterator[list[str]]:
        """The start of a command line that runs the rest of it as NOBODY, with this Python within its reach.

        What lies in a folder that NOBODY may not search is shown to it in a mount namespace, at its place.
        """
        spot = Path(tempfile.mkdtemp(prefix="gl", dir="/tmp"))
        needed = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), PROJECT}
        blocked = {
            next((above for above in reversed(path.parents) if not above.stat().st_mode & 0o001), None)
            for path in needed
        } - {None}
        script = ["set -e"]
        for number, path in enumerate(sorted(needed)):
            script += [f"mkdir {spot}/{number}", f"mount --bind {path} {spot}/{number}"]
        script += [f"mount -t tmpfs -o mode=755 tmpfs {folder}" for folder in sorted(map(str, blocked))]
        for number, path in enumerate(sorted(needed)):
            if any(folder in path.parents for folder in blocked):
                script += [f"mkdir -p {path}", f"mount --bind {spot}/{number} {path}"]
        script.append(f'exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "$@"')
        yield ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script), "sh"]
        shutil.rmtree(spot, ignore_errors=True)

    @pytest.mark.timeout(900)
    def test_everything_as_an_ordinary_user(reachable: list[str]) -> None:
        tests = sorted(path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__))
        tests.append(PROJECT / "tests" / "unit" / "runtimes" / "test_launcher_client.py")
        assert len(tests) == 12, "the launcher's tests are where this one looks for them"
        options = ["-q", "-x", "-W", "error", "--noconftest", "-c", "/dev/null", "--import-mode=importlib"]
        options += ["-p", "no:django", "-p", "no:cacheprovider", "-o", f"pythonpath={PROJECT}", "-n", "2"]
        options += ["-o", "markers=invariant"]
        # Users without a name would share the folder that pytest chooses; it belongs to the first of them.
        temporary = Path(f"/tmp/gl-{NOBODY}")
        options.append(f"--basetemp={temporary}")
        done = subprocess.run(
            [
                *reachable,
                sys.executable,
                "-m",
                "pytest",
                *options,
                "--rootdir",
                PROJECT,
                *tests,
                Path(__file__),
            ],
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        shutil.rmtree(temporary, ignore_errors=True)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert "skipped" not in done.stdout

else:

    def test_runs_are_of_this_user(node: Node) -> None:
        _, text = node.run("id -u")
        assert text == f"{os.getuid()}\n"


def test_the_isolation_is_told(node: Node) -> None:
    hello = node.client.ensure()
    assert hello.isolation == node.mode
    assert bool(hello.isolation_reason) == (node.mode != "namespaces")
    name = node.start("sleep 60")
    started = node.state(name).started
    assert started is not None
    assert started.isolation == node.mode
    assert started.pid is None
    eventually(lambda: Path(f"/proc/{started.shim_pid}").exists(), "no shim")
