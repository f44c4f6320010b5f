"""Docker Engines of the tests' own, real ones: started, frozen, killed and restarted, several side by side.

Each is a small machine of its own: mount, network and PID namespaces, held by one process that ends when this
one does, so that nothing of an engine outlives its test run, however that ends. Data, socket and pid file are
below one short folder; nothing of the host's own engine, network or firewall is touched. Published ports are
those of the engine's own network: ``connect`` and ``listen`` reach into it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import docker

from tests.support.cluster import freeze
from tests.support.waiting import limit, wait_until

T = TypeVar("T")

#: What a dockerd may see of this process' environment: no proxy, no DOCKER_ variable.
_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
_CGROUPS = Path("/sys/fs/cgroup")
_CLONE_NEWNET = 0x40000000
_NEEDED = {
    "dockerd": "docker.io",
    "docker-init": "tini",
    "busybox": "busybox-static",
    "iptables": "iptables",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
#: The first process of an engine's namespaces: reaps what is orphaned, ends with its standard input. $1: a
#: folder for a file system in memory, which is gone with the namespaces; or nothing.
_KEEP = """
umount /sys/fs/cgroup/unified 2>/dev/null
[ -z "$1" ] || mount -t tmpfs -o mode=0710 tmpfs "$1" || exit
mount -t tmpfs tmpfs /run && busybox ip link set lo up && exec docker-init -- cat
"""
#: An engine's data are in memory where so much is free: the images of a deployment take less than one.
_ROOMY_GIB = 8


class Engine:
    """One Docker Engine. ``start`` it, hand ``env`` to a node, look at it through ``client``.

    ``beside``: another engine of the same machine, as far as network and firewall go.
    """

    def __init__(self, folder: Path, name: str = "a", beside: Engine | None = None) -> None:
        self.folder = folder
        self._beside = beside
        self.name = name
        self.socket = folder / "docker.sock"
        self._data, self._exec, self._pid_file = folder / "data", folder / "exec", folder / "pid"
        self._parent = f"gantry-{folder.parent.name}-{name}"
        self._unshare: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        #: The first process of its namespaces, as this machine numbers it.
        self.keeper = 0
        self._client: Any = None

    # --- life ----------------------------------------------------------------------------------------

    def start(self, *, live_restore: bool = False) -> None:
        """Make the namespaces if there are none, start dockerd in them, wait until it answers."""
        assert os.geteuid() == 0, "a Docker Engine needs root: run the container tests as root"
        missing = sorted({package for program, package in _NEEDED.items() if not _which(program)})
        assert not missing, f"the container tests need these Debian packages: {' '.join(missing)}"
        if self._unshare is None:
            self._make_namespaces()
        self.start_daemon(live_restore=live_restore)

    def start_daemon(self, *, live_restore: bool = False) -> None:
        """Start dockerd in the namespaces that are there: after ``kill_daemon`` or ``stop_daemon``."""
        assert self._daemon is None, "dockerd is already there"
        settings = self.folder / "daemon.json"
        settings.write_text(json.dumps({"live-restore": live_restore}))
        with (self.folder / "dockerd.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [
                    *self.enter("--mount", "--net", "--pid"),
                    *("dockerd", "--config-file", str(settings), "--data-root", str(self._data)),
                    *("--exec-root", str(self._exec), "--pidfile", str(self._pid_file)),
                    *("--host", f"unix://{self.socket}", "--storage-driver", "overlay2"),
                    *("--cgroup-parent", self._parent, "--log-level", "error", "--shutdown-timeout", "2"),
                ],
                env=_ENV,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        daemon = self._daemon
        wait_until(
            lambda: self.answers() or daemon.poll() is not None, 120, 0.02, "dockerd answers", self.log
        )
        assert daemon.poll() is None, f"dockerd ended:\n{self.log()[-3000:]}"

    def kill_daemon(self) -> None:
        """SIGKILL for dockerd (its containerd dies with it); shims and containers are left to themselves."""
        self._end_daemon(signal.SIGKILL)

    def stop_daemon(self) -> None:
        """TERM, as a package upgrade does: containers are stopped unless live-restore is on."""
        self._end_daemon(signal.SIGTERM)

    def freeze(self) -> None:
        """dockerd stands still: it accepts connections and answers nothing, until ``thaw``."""
        freeze(self.daemon_pid)

    def thaw(self) -> None:
        assert self._daemon is not None, "there is no dockerd"
        for pid in (self._daemon.pid, self.daemon_pid):  # nsenter stops together with its child
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """End everything of this engine: dockerd, containers, mounts, networks go with their namespaces."""
        self._close_client()
        if self._unshare is not None:
            self._unshare.kill()  # with it the first process of the PID namespace, with that all others
            self._unshare.wait(limit(60))
            assert self._unshare.stdin is not None
            self._unshare.stdin.close()
            self._unshare = None
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait(limit(60))
            self._daemon = None
        # A zombie counts as gone: the first process of a PID namespace becomes one after all the others.
        wait_until(lambda: not _alive(self.keeper), every_s=0.01, why="the engine's processes are gone")
        wait_until(self._remove_cgroups, why="the engine's control groups are empty")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_namespaces(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._data.mkdir(mode=0o710, exist_ok=True)
        with (self.folder / "keeper.log").open("wb") as log:
            self._unshare = subprocess.Popen(
                [
                    *(self._beside.enter("--net") if self._beside else ()),
                    *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"),
                    *(() if self._beside else ("--net",)),
                    *("--propagation", "private", "sh", "-c", _KEEP, "sh"),
                    str(self._data) if _free_gib() > _ROOMY_GIB else "",
                ],
                env=_ENV,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        above = self._unshare

        def ready() -> bool:
            children = _children(above.pid)
            if above.poll() is not None or not children:
                return above.poll() is not None
            self.keeper = children[0]
            return b"docker-init" in _read(Path(f"/proc/{self.keeper}/cmdline"))

        wait_until(ready, every_s=0.005, why="the engine's namespaces are there")
        assert above.poll() is None, f"no namespaces: {(self.folder / 'keeper.log').read_text()}"

    def _end_daemon(self, number: signal.Signals) -> None:
        assert self._daemon is not None, "there is no dockerd"
        self._close_client()
        pid = self.daemon_pid
        for whom, what in ((pid, number), (pid, signal.SIGCONT), (self._daemon.pid, signal.SIGCONT)):
            with contextlib.suppress(ProcessLookupError):  # it may be frozen
                os.kill(whom, what)
        self._daemon.wait(limit(60))
        self._daemon = None
        self._pid_file.unlink(missing_ok=True)

    def _remove_cgroups(self) -> bool:
        for root, _, _ in os.walk(_CGROUPS, topdown=False):
            if self._parent in root:
                with contextlib.suppress(OSError):
                    Path(root).rmdir()
        return not any(self._parent in root for root, _, _ in os.walk(_CGROUPS))

    # --- what it is ----------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def env(self) -> dict[str, str]:
        """What a node needs to use this engine."""
        return {"DOCKER_HOST": self.url}

    @property
    def running(self) -> bool:
        return self._daemon is not None and self._daemon.poll() is None

    @property
    def daemon_pid(self) -> int:
        """dockerd's process, as this machine numbers it."""
        assert self._daemon is not None, "there is no dockerd"
        return _children(self._daemon.pid)[0]

    @property
    def client(self) -> Any:
        """The SDK's client for the test's own questions; closed and made again around a restart."""
        if self._client is None:
            self._client = docker.DockerClient(base_url=self.url, version="1.41", timeout=limit(120))
        return self._client

    def answers(self) -> bool:
        """Does it answer a ping now?"""
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(limit(5))
        try:
            link.connect(str(self.socket))
            link.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in link.recv(64)
        except OSError:
            return False
        finally:
            link.close()

    def log(self) -> str:
        return (self.folder / "dockerd.log").read_text(errors="replace")

    def _close_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    # --- what is in it -------------------------------------------------------------------------------

    def containers(self, **labels: str) -> list[dict[str, Any]]:
        """Every container, in whatever state, as inspected; only those with all of these labels."""
        found = []
        for item in self.client.api.containers(all=True):
            with contextlib.suppress(docker.errors.NotFound):
                inspected: dict[str, Any] = self.client.api.inspect_container(item["Id"])
                given = inspected["Config"]["Labels"] or {}
                if all(given.get(key) == value for key, value in labels.items()):
                    found.append(inspected)
        return found

    def clean(self) -> None:
        """Remove every container, and every network and volume that a test made; images stay."""
        for item in self.client.api.containers(all=True):
            with contextlib.suppress(docker.errors.APIError):  # gone, or being removed: that is waited for
                self.client.api.remove_container(item["Id"], force=True, v=True)
        wait_until(
            lambda: not self.client.api.containers(all=True),
            why="every container is removed",
            see=self.containers,
        )
        # What a container still uses is passed by in silence.
        self.client.api.prune_networks()
        self.client.api.prune_volumes()

    def pids(self, container: str) -> list[int]:
        """The processes of a container at this moment, as this machine numbers them."""
        found: set[int] = set()
        for root, _, files in os.walk(_CGROUPS / "pids"):
            if f"/{self._parent}/{container}" in root and "cgroup.procs" in files:
                found |= {int(word) for word in _read(Path(root) / "cgroup.procs").split()}
        return sorted(found)

    def main(self, container: str) -> int:
        """Its first process, as this machine numbers it (dockerd counts in a namespace of its own)."""
        for pid in self.pids(container):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a brief child of it
                status = Path(f"/proc/{pid}/status").read_text()
                if re.search(r"^NSpid:.*\s1$", status, re.MULTILINE):
                    return pid
        raise AssertionError(f"{container} has no process")

    def tell_started(self, container: str, pid: int = 4_000_000) -> None:
        """Send dockerd what its containerd sends when a container has started, here with a dead process."""

        def field(number: int, value: bytes) -> bytes:
            return bytes([number << 3 | 2, len(value)]) + value

        number = bytes([0x10, pid & 127 | 128, pid >> 7 & 127 | 128, pid >> 14 & 127 | 128, pid >> 21])
        event = field(1, container.encode()) + number
        address = self._exec / "containerd" / "containerd.sock"
        subprocess.run(
            [
                *self.enter("--mount", "--pid"),
                *("containerd", "--address", str(address), "publish"),
                *("--namespace", "moby", "--topic", "/tasks/start"),
            ],
            input=field(1, b"containerd.events.TaskStart") + field(2, event),
            env=_ENV,
            check=True,
        )

    # --- its network ---------------------------------------------------------------------------------

    def enter(self, *namespaces: str) -> list[str]:
        """The beginning of a command that executes the rest inside the engine's namespaces."""
        return ["nsenter", f"--target={self.keeper}", *namespaces, "--"]

    def connect(self, port: int, timeout_s: float = 60.0) -> socket.socket:
        """A connection to a port that one of its containers has published."""
        return self._in_network(lambda: socket.create_connection(("127.0.0.1", port), limit(timeout_s)))

    def listen(self, port: int = 0, host: str = "127.0.0.1") -> socket.socket:
        """A listening socket as dockerd sees it, e.g. for a registry that behaves badly.

        On the address of a network's gateway it is reached by that network's containers.
        """
        return self._in_network(lambda: socket.create_server((host, port)))

    def _in_network(self, work: Callable[[], T]) -> T:
        """Do this in a thread that is in the engine's network; a socket stays in it for good."""
        done: list[T] = []
        failed: list[BaseException] = []

        def enter() -> None:
            try:
                with Path(f"/proc/{self.keeper}/ns/net").open() as there:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(there.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                done.append(work())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=enter, name="in-network")
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return done[0]


def _which(program: str) -> str | None:
    return shutil.which(program, path=_ENV["PATH"])


def _free_gib() -> float:
    found = re.search(rb"MemAvailable: *(\d+) kB", _read(Path("/proc/meminfo")))
    return int(found[1]) / 2**20 if found else 0.0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _alive(pid: int) -> bool:
    return _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()[:1] not in ([], [b"Z"], [b"X"])


def _children(pid: int) -> list[int]:
    return [int(word) for word in _read(Path(f"/proc/{pid}/task/{pid}/children")).split()]
