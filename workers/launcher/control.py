"""The file formats of the launcher's control folder: names, locks, records, stop requests, states.

The launcher, its shims and the worker's client all read and write through here, so that there is one
definition of "running". Pure functions over files. Must not import anything but the standard library,
and keeps to few modules: every one costs memory in each waiting shim.

Layout of the control folder (mode 0700):
  launcher.sock, launcher.lock, launcher.log, renewed, uid_counter
  runs/<name>/lock      flock held by the shim while it lives: the truth of liveness, never process ids.
                        It holds space, too: on a full disk a stop is written in it, and it becomes `exit`
              started   written before the command can execute; `exit` after every process is dead
              stop      a request to stop; `holes` says which bytes of the output were dropped
              stdout, stderr
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import re
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

PROTOCOL = 2
FRAME_LIMIT = 4 * 1024 * 1024  # bytes of one request or reply line
STREAMS = ("stdout", "stderr")

ABSENT = "absent"  # no folder: nobody asked for it here
PREPARED = "prepared"  # a folder, but the command was never executed: it may be started
RUNNING = "running"  # the shim holds the lock
EXITED = "exited"  # `exit` says how it ended, and no process of it is left
LOST = "lost"  # it was started, its shim is gone and nobody recorded the end

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_serial = itertools.count()  # two threads of one process do not share a temporary file
_RESERVE = 4096  # bytes that the lock file of a run takes ahead: one block
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SOCKET_PATH_LIMIT = 100  # bytes; the kernel's own limit is 108


class BadNameError(ValueError):
    """The name of a run cannot be used as the name of a folder."""


def check_name(name: object) -> str:
    """Return the name when it is safe as a folder's name, else raise BadNameError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadNameError(
            f"bad name of a run: {str(name)[:120]!r}. Use 1 to 100 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit."
        )
    return name


def run_dir(control: str, name: str) -> str:
    """The control folder of one attempt. Raises BadNameError."""
    return os.path.join(control, "runs", check_name(name))


def socket_address(control: str, name: str = "launcher.sock") -> tuple[str, int | None]:
    """The address of a socket in a control folder, and a descriptor to close after use (None: nothing to
    close).

    A folder whose path is too long for a socket address is reached through a descriptor.
    """
    path = os.path.join(control, name)
    if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
        return path, None
    folder = os.open(control, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{name}", folder


def boottime() -> float:
    """Seconds since the machine started, sleep included: no clock change moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Which start of the machine this is: boottime() of another one means nothing here."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def write_bytes(path: str, data: bytes, dir_fd: int | None = None) -> None:
    """Write a file atomically: a reader sees the old content or the new one, never a part."""
    temporary = f"{path}.{os.getpid()}-{next(_serial)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(temporary, flags, 0o600, dir_fd=dir_fd)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.rename(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise
    finally:
        os.close(file)


def overwrite(path: str, data: bytes) -> None:
    """Write a small file, on a full disk in place of its old content: not atomic, but without a new block."""
    try:
        write_bytes(path, data)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.pwrite(file, data, 0)
            os.ftruncate(file, len(data))
        finally:
            os.close(file)


def dump(record: Record) -> bytes:
    return json.dumps(record).encode()


def write_record(path: str, record: Record, dir_fd: int | None = None) -> None:
    write_bytes(path, dump(record) + b"\n", dir_fd)


def read_record(path: str, dir_fd: int | None = None) -> Record | None:
    """A JSON object from a file; None when the file is not there or holds something else."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with open(file, "rb") as stream:
        try:
            record = json.loads(stream.read().rstrip(b"\0"))  # what is reserved is longer than what it holds
        except ValueError:
            return None
    return record if isinstance(record, dict) else None


def try_lock(path: str) -> int | None:
    """Take a lock file for life. Returns the descriptor that holds it, or None when another holds it.

    A reader's probe (see lock_held) holds the lock for a moment, so a refusal is asked again.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(25):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.001)
        else:
            return file
    os.close(file)
    return None


def reserve(lock: int) -> None:
    """Take the space for a record ahead: who fills the disk must still be stopped and end. Raises OSError."""
    os.posix_fallocate(lock, 0, _RESERVE)


def write_exit(record: Record, folder: int, lock: int) -> None:
    """Record the end of a run, on a full disk in the space that its lock file holds, and without a new
    descriptor where there is none. Raises OSError."""
    data = dump(record) + b"\n"
    try:
        write_bytes("exit", data, folder)
    except OSError as error:
        if error.errno not in (*_FULL, errno.EMFILE, errno.ENFILE) or os.fstat(lock).st_size < len(data):
            raise
        os.pwrite(lock, data, 0)
        os.ftruncate(lock, len(data))
        os.rename("lock", "exit", src_dir_fd=folder, dst_dir_fd=folder)


def lock_held(folder: str) -> bool:
    """Does a shim hold the lock of this run? A shared probe: readers do not disturb one another."""
    try:
        file = os.open(os.path.join(folder, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def state_of(folder: str) -> Record:
    """The true state of one attempt: {state, started, exit}, from its files alone."""
    ended = read_record(os.path.join(folder, "exit"))
    held = ended is None and lock_held(folder)
    started = read_record(os.path.join(folder, "started"))
    if ended is None and not held and started is not None:
        # Between the first look and the second the shim may have written `exit` and gone.
        ended = read_record(os.path.join(folder, "exit"))
    if ended is not None:
        state = EXITED
    elif held:
        state = RUNNING
    elif started is not None:
        state = LOST
    else:
        state = PREPARED if os.path.isdir(folder) else ABSENT
    return {"state": state, "started": started, "exit": ended}


def write_stop(folder: str, why: str, grace: float) -> None:
    """Ask for a stop: TERM to every process now, KILL after `grace` seconds.

    Of several requests the first reason is kept, and the earliest end.
    """
    now = boottime()
    grace = max(0.0, float(grace))
    record: Record = {"why": why, "grace": grace, "at": now}
    path = os.path.join(folder, "stop")
    earlier = stop_request(read_stop(folder))
    if earlier is not None:
        first_why, at, deadline = earlier
        if deadline <= now + grace:
            return
        record = {"why": first_why, "grace": max(0.0, now + grace - at), "at": at}
    try:
        write_record(path, record)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))  # it must not start any more
        with contextlib.suppress(FileNotFoundError):  # no lock: it has not started
            lock = os.open(os.path.join(folder, "lock"), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.pwrite(lock, dump(record).ljust(_RESERVE // 2, b"\0"), 0)
            finally:
                os.close(lock)


def read_stop(folder: str, dir_fd: int | None = None) -> Record | None:
    """The request to stop a run, wherever there was space to write it; `folder` is "" with a `dir_fd`."""
    return read_record(os.path.join(folder, "stop"), dir_fd) or read_record(
        os.path.join(folder, "lock"), dir_fd
    )


def stop_request(record: Record | None) -> tuple[str, float, float] | None:
    """(why, asked at, end of the grace period) of a stop record; times are boottime() seconds."""
    if record is None:
        return None
    try:
        at, grace = float(record["at"]), float(record["grace"])
    except (KeyError, TypeError, ValueError):
        return None
    return str(record.get("why", "")), at, at + grace


def signal_shim(folder: str) -> bool:
    """Wake the shim of a run so that it reads `stop` now. False when there is none to wake.

    The lock is looked at after the descriptor of the process was taken, so a reused id is never signalled.
    """
    started = read_record(os.path.join(folder, "started"))
    try:
        process = os.pidfd_open(int(started["shim_pid"])) if started else None
    except (OSError, KeyError, TypeError, ValueError):
        return False
    if process is None:
        return False
    try:
        if not lock_held(folder):
            return False
        signal.pidfd_send_signal(process, signal.SIGUSR1)
    except OSError:
        return False
    finally:
        os.close(process)
    return True
