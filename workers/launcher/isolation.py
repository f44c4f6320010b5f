"""What separates runs from one another and from the node: uids, and PID, mount and IPC namespaces.

Standard library only. Three modes, found out once by trying:
  namespaces  root that may unshare: own uid, own processes, own /tmp, /var/tmp, /dev/shm
  uids        root that may not (a plain container): own uid
  none        an ordinary user: commands run as that user
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from . import control, kernel

NAMESPACES = "namespaces"
UIDS = "uids"
NONE = "none"

UID_COUNT = 60_000
_UID_BLOCK = 64  # uids taken from the counter at a time
_SHARED_FOLDERS = ("/tmp", "/var/tmp", "/run/lock", "/dev/mqueue")  # noqa: S108 (these are what is hidden)
_SHARED_MEMORY = "/dev/shm"  # noqa: S108
_SHARED_MEMORY_OPTIONS = "size=64m,nr_inodes=4096,mode=1777"


class Uids:
    """Hands out uids, one per run, so that reuse is far apart.

    The counter and the locks are shared by every launcher of the machine: two nodes on one machine must not
    give one uid to two runs. A shim locks the byte of its uid for as long as it lives. Each launcher also keeps
    the counter in its own folder, since the shared file does not survive a restart of the machine.
    """

    def __init__(self, control_dir: str, base: int) -> None:
        self.base = base
        self._own = os.path.join(control_dir, "uid_counter")
        self._file = self._open(control_dir)
        self._next = self._end = 0
        self._catch_up()

    @staticmethod
    def _open(control_dir: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with contextlib.suppress(OSError):
            return os.open("/run/gantry.uids", flags, 0o600)
        return os.open(os.path.join(control_dir, "uids"), flags, 0o600)

    @property
    def descriptor(self) -> int:
        """The file whose bytes are the locks: a shim keeps it open."""
        return self._file

    def candidate(self) -> int:
        """The next uid. The shim moves on from it if a long run still holds it."""
        if self._next == self._end:
            with self._locked():
                self._next = self._read()
                self._end = self._next + _UID_BLOCK
                self._write(self._end)
            control.write_bytes(self._own, str(self._end).encode())
        self._next += 1
        return self.base + (self._next - 1) % UID_COUNT

    def claim(self, candidate: int) -> int:
        """Called in the shim: lock a uid for the life of this process, the candidate if it is free."""
        for step in range(UID_COUNT):
            uid = self.base + (candidate - self.base + step) % UID_COUNT
            with contextlib.suppress(BlockingIOError, PermissionError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, uid)
                return uid
        raise OSError(f"all {UID_COUNT} uids from {self.base} are in use")

    @contextlib.contextmanager
    def held(self, uid: int) -> Iterator[bool]:
        """Hold a uid for a moment. False when it is not ours to give, or a run holds it."""
        if not self.base <= uid < self.base + UID_COUNT:
            yield False
            return
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, uid)
        except (BlockingIOError, PermissionError):
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, uid)

    def _catch_up(self) -> None:
        own = 0
        with contextlib.suppress(OSError, ValueError), open(self._own) as file:
            own = int(file.read())
        with self._locked():
            shared = self._read()
            if shared == 0 and own == 0:
                self._write(1 + int.from_bytes(os.urandom(2)) % UID_COUNT)
            elif shared == 0 or 0 < (own - shared) % UID_COUNT < UID_COUNT // 2:
                self._write(own)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _read(self) -> int:
        try:
            return int(os.pread(self._file, 20, 0))
        except ValueError:
            return 0

    def _write(self, value: int) -> None:
        os.pwrite(self._file, b"%-20d" % value, 0)


class Isolation:
    """The mode of this launcher, and the steps of the fork that it needs."""

    def __init__(
        self, control_dir: str, wanted: bool, uid_base: int, files_limit: tuple[int, int]
    ) -> None:
        self.uids: Uids | None = None
        self.mode = NONE
        self.reason = "not root: commands run as this user"
        self.refusal: str | None = None
        self.files_limit = files_limit  # what a run gets unless it asks: not the launcher's own
        self.boot_id = control.boot_id()
        if os.geteuid() != 0:
            return
        problem = _attempt(lambda: os.setresuid(uid_base, uid_base, uid_base))
        if problem:
            self.reason = problem
            self.refusal = f"root cannot become uid {uid_base} here ({problem}): commands would run as root"
            return
        self.uids = Uids(control_dir, uid_base)
        self.mode, self.reason = UIDS, "switched off"
        if not wanted:
            return
        scratch = os.path.join(control_dir, "probe")
        os.makedirs(os.path.join(scratch, "tmp"), exist_ok=True)
        problem = _attempt(lambda: _try_namespaces(scratch))
        if problem:
            self.reason = problem
        else:
            self.mode, self.reason = NAMESPACES, ""
            self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def kept_descriptors(self) -> set[int]:
        """What a shim must not close."""
        return {self.uids.descriptor} if self.uids else set()

    def fork(self) -> int:
        """Like os.fork; in mode `namespaces` the child is process 1 of a new PID namespace."""
        if self.mode != NAMESPACES:
            return os.fork()
        kernel.unshare(kernel.CLONE_NEWPID)
        try:
            child = os.fork()
        except BaseException:
            kernel.setns(self._home, kernel.CLONE_NEWPID)
            raise
        if child:
            # Back to our own namespace, else the next unshare is refused and the next fork is a stranger.
            kernel.setns(self._home, kernel.CLONE_NEWPID)
        return child


def enter_namespaces(scratch: str) -> None:
    """In the shim: own mounts and IPC objects; the shared writable folders are replaced by the run's own.

    The mounts follow what the host unmounts, and nothing of ours goes back (slave).
    """
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_SLAVE)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    scratch = os.path.realpath(scratch)
    own_tmp = os.path.join(scratch, "tmp")
    folder = os.open(scratch, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    temporary = os.open(own_tmp, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    hidden = False
    for target in _SHARED_FOLDERS:
        if os.path.isdir(target):
            kernel.mount(f"/proc/self/fd/{temporary}", target, None, kernel.MS_BIND)
            hidden = hidden or scratch.startswith(os.path.realpath(target) + "/")
    if os.path.isdir(_SHARED_MEMORY):
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount("shm", _SHARED_MEMORY, "tmpfs", flags, _SHARED_MEMORY_OPTIONS)
        hidden = hidden or scratch.startswith(_SHARED_MEMORY + "/")
    if hidden:
        # The data folder lies below a folder that was just replaced: give the run its own path back.
        os.makedirs(scratch, mode=0o755, exist_ok=True)
        kernel.mount(f"/proc/self/fd/{folder}", scratch, None, kernel.MS_BIND)
    os.close(temporary)
    os.close(folder)


def own_scratch(scratch: str, uid: int | None) -> None:
    """Make the folder and what the worker put there the run's own, and give it a tmp. Links are not followed."""
    folder = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir("tmp", 0o700, dir_fd=folder)
        if uid is not None:
            for _, names, files, parent in os.fwalk(".", dir_fd=folder, onerror=_raise):
                for name in names + files:
                    os.chown(name, uid, uid, dir_fd=parent, follow_symlinks=False)
            os.fchown(folder, uid, uid)
        os.fchmod(folder, 0o700)
    finally:
        os.close(folder)


def _raise(error: OSError) -> None:
    raise error


def _try_namespaces(scratch: str) -> None:
    kernel.unshare(kernel.CLONE_NEWPID)
    child = os.fork()
    if child == 0:
        _leave(lambda: enter_namespaces(scratch))
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise OSError("the machine does not permit namespaces with their own mounts (see launcher.log)")


def _attempt(step: Callable[[], None]) -> str | None:
    """Try a step in a child of its own. None when it works, else why it does not."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _leave(step, write)
    os.close(write)
    with open(read, "rb") as stream:
        problem = stream.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return None if status == 0 else problem or f"killed by signal {status & 127}"


def _leave(step: Callable[[], None], report: int | None = None) -> None:
    try:
        step()
    except BaseException as error:  # noqa: BLE001 (a forked child must end here, whatever happened)
        os.write(2 if report is None else report, f"{error}\n".encode())
        os._exit(1)
    os._exit(0)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

