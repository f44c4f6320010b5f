"""The launcher as a process: options, detaching, the lock of its folder, the end.

Standard library only. It survives the worker that started it: own session, no terminal, no inherited files.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
import sys

from . import cgroup, control, journal, kernel
from .isolation import Isolation
from .rehearsal import rehearse
from .server import BACKLOG, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

OK = 0
BAD_OPTIONS = 64
CANNOT = 71
TAKEN = 75  # another launcher holds the folder

_LOCK_PATIENCE = 40  # tries of 25 ms: a shim just forked by a killed launcher holds the lock for a moment


class Options:
    def __init__(self, arguments: list[str]) -> None:
        """Raises ValueError with what is wrong."""
        self.control_dir = ""
        self.idle_exit = 60.0
        self.isolation = "on"
        self.cgroup = cgroup.AUTO
        self.uid_base = int(os.environ.get("GANTRY_UID_BASE") or 200_000)
        self.foreground = False
        waiting = list(arguments)
        while waiting:
            word = waiting.pop(0)
            if word == "--foreground":
                self.foreground = True
            elif word.startswith("--"):
                if not waiting:
                    raise ValueError(f"{word} needs a value")
                self._set(word, waiting.pop(0))
            elif self.control_dir:
                raise ValueError(f"one control folder, please: not {word!r} too")
            else:
                self.control_dir = os.path.abspath(word)
        if not self.control_dir:
            raise ValueError("the control folder is missing")
        if not 1000 <= self.uid_base < 1 << 31:
            raise ValueError(f"--uid-base must be from 1000 to 2147483647, not {self.uid_base}")

    def _set(self, word: str, value: str) -> None:
        if word == "--idle-exit":
            self.idle_exit = float(value)
        elif word == "--uid-base":
            self.uid_base = int(value)
        elif word == "--isolation" and value in ("on", "off", "none"):
            self.isolation = value
        elif word == "--cgroup" and (value in (cgroup.AUTO, cgroup.OFF) or value.startswith("/")):
            self.cgroup = value.rstrip("/")
        else:
            raise ValueError(f"unknown option: {word} {value}")


def main(arguments: list[str]) -> NoReturn:
    try:
        options = Options(arguments)
    except ValueError as error:
        _say(f"launcher: {error}")
        sys.exit(BAD_OPTIONS)
    report: int | None = None
    if not options.foreground:
        report = _detach()
    code = OK
    try:
        code = _run(options, report)
    except OSError as error:
        code = CANNOT
        _tell(report, f"launcher: cannot work in {options.control_dir}: {error}", CANNOT)
    # Nothing is left to clean up; leaving at once also keeps threads and hooks of nobody from delaying it.
    os._exit(code)


def _run(options: Options, report: int | None) -> int:
    lock = _take_folder(options.control_dir)
    if lock is None:
        _tell(report, f"launcher: another launcher holds {options.control_dir}", TAKEN)
        return TAKEN
    kernel.hide_memory()
    kernel.become_subreaper()
    kernel.no_new_privileges()  # inherited by every shim and command
    if os.geteuid() == 0:
        os.setgroups([])
    files_limit = _prepare_process()
    listener = _listen(options.control_dir)
    journal.open_log(options.control_dir)
    if options.isolation == "none":
        separate = Isolation.plain(files_limit)
    else:
        wanted = options.isolation == "on"
        separate = Isolation(options.control_dir, wanted, options.uid_base, files_limit)
        separate.groups = cgroup.find(options.cgroup, options.control_dir)
    rehearse(options.control_dir, separate)
    server = Server(options.control_dir, listener, separate, options.idle_exit)
    journal.log(
        f"launcher {os.getpid()} listens; isolation: {separate.mode} {separate.refusal or separate.reason}"
    )
    _tell(report, "", OK)
    gc.disable()
    gc.collect()
    gc.freeze()
    try:
        server.serve()
    except BaseException as error:
        journal.log(f"launcher fails: {error!r}")
        raise
    # While the lock is still ours, no other launcher can have made a socket of this name.
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(options.control_dir, "launcher.sock"))
    return OK


def _take_folder(control_dir: str) -> int | None:
    os.umask(0o077)
    os.makedirs(control_dir, 0o700, exist_ok=True)
    status = os.stat(control_dir)
    if status.st_uid != os.geteuid():
        raise PermissionError(f"it belongs to user {status.st_uid}, not to user {os.geteuid()}")
    os.chmod(control_dir, 0o700)
    for _ in range(_LOCK_PATIENCE):
        lock = control.try_lock(os.path.join(control_dir, "launcher.lock"))
        if lock is not None or _answers(control_dir):
            return lock
    return None


def _answers(control_dir: str) -> bool:
    """Does a launcher listen here? Then its lock is no leftover, and waiting for it is no use."""
    address, folder = control.socket_address(control_dir)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(address)
    except OSError:
        return False
    finally:
        if folder is not None:
            os.close(folder)
    return True


def _listen(control_dir: str) -> socket.socket:
    address, folder = control.socket_address(control_dir)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.bind(address)
    os.chmod(address, 0o600)
    os.umask(0o022)  # what commands inherit; every other file here is made with its mode
    listener.listen(BACKLOG)
    if folder is not None:
        os.close(folder)
    return listener


def _prepare_process() -> tuple[int, int]:
    """Known signals, many files, no working folder, not the worker's. Returns the limit of files."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir("/")
    return soft, hard


def _detach() -> int:
    """Fork twice; the first process waits for the launcher's word and ends with its code."""
    read, write = os.pipe()
    if os.fork() > 0:
        os.close(write)
        with open(read, "rb") as stream:
            word = stream.read()
        code, _, message = word.partition(b" ")
        if message:
            _say(message.decode(errors="replace"))
        sys.stderr.flush()
        os._exit(int(code) if code else CANNOT)
    os.close(read)
    os.setsid()
    if os.fork() > 0:
        os._exit(OK)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1, 2):
        os.dup2(null, number)
    # The worker's descriptors were closed on exec; what an unusual parent left open ends here.
    os.closerange(3, write)
    os.closerange(write + 1, 1 << 20)
    return write


def _tell(report: int | None, message: str, code: int) -> None:
    if report is None:
        if message:
            _say(message)
        return
    os.write(report, f"{code} {message}".encode(errors="replace"))
    os.close(report)


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")
