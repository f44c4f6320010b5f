"""The shim: one process per run, forked (not executed) from the launcher, parent of the user's command.

It holds the run's lock for life, adopts every orphan of the run, carries out stops, caps the output, and
writes `exit` when no process of the run is left. It needs nobody: launcher and worker may die.
Standard library only. Paths are reached through descriptors taken before the mounts change.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import time

from . import command, control, isolation, kernel, output, processes
from .orders import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .control import Record
    from .isolation import Isolation
    from .orders import Order

_WAKE_SIGNALS = (signal.SIGCHLD, signal.SIGUSR1)
_KILL_AGAIN = 0.02  # seconds between two rounds of KILL
_RECORD_AGAIN = 0.5  # seconds between two tries to write `exit` on a full disk


def run(order: Order, files: tuple[int, int, int], separate: Isolation, candidate: int | None) -> None:
    """The whole life of a shim, called in the fork with every signal blocked. Never returns.

    `files`: the control folder of the run, its lock, the pipe to the launcher.
    """
    try:
        _close_all_but(sorted({0, 1, 2, *files} | separate.kept_descriptors()))
        signal.set_wakeup_fd(-1)
        os.setsid()
        os.umask(0o022)
        shim = Shim(order, files[0], files[2], separate, candidate)
        try:
            shim.start()
        except (OSError, RefusedError) as error:
            # Nothing was executed and `started` is not there: the run may be started again.
            shim.send({"error": str(error)})
        else:
            shim.watch()
    except BaseException as error:  # noqa: BLE001 (a forked child must end here, whatever happened)
        with contextlib.suppress(OSError):
            os.write(2, f"shim of {order.name}: {error!r}\n".encode())
    os._exit(0)


def _close_all_but(kept: list[int]) -> None:
    for low, high in zip(kept, [*kept[1:], 1 << 20], strict=True):
        os.closerange(low + 1, high)


class Shim:
    def __init__(
        self, order: Order, folder: int, report: int, separate: Isolation, candidate: int | None
    ) -> None:
        self._order = order
        self._folder = folder
        self._report = report
        self._separate = separate
        self._candidate = candidate
        self._uid: int | None = None
        self._main = 0
        self._status: int | None = None
        self._started_at = 0.0
        self._ended_at = 0.0
        self._began = self._ran = 0.0
        self._why: str | None = None
        self._deadline: float | None = None

    def start(self) -> None:
        """Prepare everything, write `started`, let the command execute. Raises OSError or RefusedError."""
        order, separate = self._order, self._separate
        own_id = int(os.readlink("/proc/self"))
        host_proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if separate.uids is not None and self._candidate is not None:
            self._uid = separate.uids.claim(self._candidate)
        elif order.nproc is not None:
            order.nproc += processes.tasks_of_user(os.getuid())
        isolation.own_scratch(order.scratch, self._uid)
        files = tuple(self._open_output(stream) for stream in control.STREAMS)
        self._output = output.Output(self._folder, files, order.head_bytes, order.tail_bytes)
        contained = separate.mode == isolation.NAMESPACES
        if contained:
            isolation.enter_namespaces(order.scratch)
        else:
            kernel.become_subreaper()
        ours, theirs = socket.socketpair()
        self._main = os.fork()
        if self._main == 0:
            setting = command.Setting(self._uid, files, host_proc, separate.files_limit, not contained)
            command.become(order, setting, theirs)
        theirs.close()
        self._link = ours
        self._reach: processes.Reach = processes.TreeReach()
        if contained:
            self._reach = processes.NamespaceReach()
        elif self._uid is not None:
            self._reach = processes.UserReach(self._uid, self._main)
        main_id = ours.recv(32).partition(b"\n")[0]
        os.close(host_proc)
        if not main_id:
            raise RefusedError("start_failed", "the command's process died before it could be prepared")
        self._started_at, self._began = time.time(), time.monotonic()
        started = {
            "shim_pid": own_id,
            "pid": int(main_id),
            "uid": os.getuid() if self._uid is None else self._uid,
            "fence": order.fence,
            "at": self._started_at,
            "boottime": control.boottime(),
            "boot_id": separate.boot_id,
            "isolation": separate.mode,
        }
        control.write_record("started", started, self._folder)
        with contextlib.suppress(OSError):
            ours.send(b"g")
        self.send({"started": started})

    def _open_output(self, stream: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(stream, flags, 0o600, dir_fd=self._folder)
        if self._uid is not None:
            os.fchown(file, self._uid, self._uid)  # so that the command can open /dev/stdout again
        return file

    def watch(self) -> None:
        """Until no process of the run is left; then record the end."""
        while self._reap():
            with contextlib.suppress(OSError):  # a full disk must not stop the watching
                self._obey()
                self._output.look()
            signal.sigtimedwait(_WAKE_SIGNALS, self._patience())
        self._record()

    def _reap(self) -> bool:
        """Collect what ended. False when no child is left, which means no process of the run."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if process == 0:
                return True
            if process == self._main:
                self._status, self._ended_at = status, time.time()
                self._ran = time.monotonic() - self._began

    def _obey(self) -> None:
        """Carry out what is due: the end of the main process, or a request to stop."""
        if self._status is not None:
            self._reach.kill()
            return
        request = control.stop_request(control.read_record("stop", self._folder))
        if request is None:
            return
        why, at, deadline = request
        now = control.boottime()
        deadline = min(deadline, now + max(0.0, deadline - at))
        if self._deadline is None:
            self._why, self._deadline = why, deadline
            self._reach.send(signal.SIGTERM)
            self._reach.send(signal.SIGCONT)  # a stopped process can only end itself when it runs
        self._deadline = min(self._deadline, deadline)
        if now >= self._deadline:
            self._reach.kill()

    def _patience(self) -> float:
        if self._status is not None:
            return _KILL_AGAIN
        if self._deadline is None:
            return self._output.interval
        return min(self._output.interval, max(_KILL_AGAIN, self._deadline - control.boottime()))

    def _record(self) -> None:
        status = self._status
        if status is None:
            raise RuntimeError("the main process was never collected: its end is unknown")
        self._link.setblocking(False)
        error = b""
        with contextlib.suppress(OSError):
            error = self._link.recv(4096)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        failed = bool(error)
        record: Record = {
            "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) and not failed else None,
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) and not failed else None,
            "error": error.decode(errors="replace") if failed else None,
            "killed": self._why,
            "started_at": self._started_at,
            "ended_at": self._ended_at,
            "ran_s": round(self._ran, 6),
            "max_rss_kb": usage.ru_maxrss,
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 6),
        }
        while True:
            try:
                record.update(self._output.summary())
                control.write_record("exit", record, self._folder)
                break
            except OSError as problem:
                # An end that is not recorded is a lost run: wait for the disk rather than lose it.
                os.write(2, f"shim of {self._order.name}: cannot record the end: {problem}\n".encode())
                signal.sigtimedwait(_WAKE_SIGNALS, _RECORD_AGAIN)
        self.send({"exit": record})

    def send(self, message: Record) -> None:
        """Tell the launcher, if it still listens: files are the truth, this only saves it a look."""
        with contextlib.suppress(OSError):
            os.write(self._report, json.dumps(message).encode() + b"\n")
