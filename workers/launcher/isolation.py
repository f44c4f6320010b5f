"""What separates runs from one another and from the node: uids, and PID, mount and IPC namespaces.

Standard library only. Three modes, found out once by trying:
  namespaces  root that may unshare: own uid, own processes, own /tmp, /var/tmp, /dev/shm
  uids        root that may not (a plain container): own uid
  none        an ordinary user, or wished so (`plain`): commands run as that user
"""

from __future__ import annotations

import os
import resource

from . import cgroup, control, kernel
from .uids import Uids

NAMESPACES = "namespaces"
UIDS = "uids"
NONE = "none"

_SHARED_MEMORY = b"/dev/shm"
_SHARED_FOLDERS = (b"/tmp", b"/var/tmp", b"/run/lock", b"/dev/mqueue", _SHARED_MEMORY)  # hidden from runs
_SHARED_MEMORY_OPTIONS = b"size=64m,nr_inodes=4096,mode=1777"


class Isolation:
    """The mode of this launcher, and the steps of the fork that it needs."""

    #: What the launcher may do with control groups; none for processes of the worker's own.
    groups: cgroup.Groups | None = None

    def __init__(self, control_dir: str, wanted: bool, uid_base: int, files_limit: tuple[int, int]) -> None:
        self.uids: Uids | None = None
        self._shared_folders = [os.path.realpath(path) for path in _SHARED_FOLDERS if os.path.isdir(path)]
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
        scratch = os.path.realpath(os.path.join(control_dir, "probe"))
        os.makedirs(os.path.join(scratch, "tmp"), exist_ok=True)
        problem = _attempt(lambda: self._try_namespaces(scratch))
        if problem:
            self.reason = problem
        else:
            self.mode, self.reason = NAMESPACES, ""
            self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def without(self) -> Isolation:
        """The same machine without any separation, for the launcher's rehearsal."""
        return self.plain(resource.getrlimit(resource.RLIMIT_NOFILE))

    @classmethod
    def plain(cls, files_limit: tuple[int, int]) -> Isolation:
        """No separation although there could be: for processes of the worker's own, as its own user."""
        made = cls.__new__(cls)
        made.uids, made.mode, made.reason, made.refusal = None, NONE, "switched off", None
        made.boot_id, made.files_limit = control.boot_id(), files_limit
        return made

    def _try_namespaces(self, scratch: str) -> None:
        kernel.unshare(kernel.CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            _leave(lambda: self.enter_namespaces(scratch, 0))
        _, status = os.waitpid(child, 0)
        if status != 0:
            raise OSError("the machine does not permit namespaces with their own mounts (see launcher.log)")

    def enter_namespaces(self, scratch: str, uid: int) -> None:
        """In the shim: own mounts and IPC objects; shared writable folders are replaced by the run's own tmp.

        The mounts follow what the host unmounts, and nothing of ours goes back (slave).
        """
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC)
        kernel.mount(None, b"/", None, kernel.MS_REC | kernel.MS_SLAVE)
        kernel.mount(b"proc", b"/proc", b"proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
        home = os.fsencode(scratch)
        above = [target for target in self._shared_folders if home.startswith(target + b"/")]
        own_tmp = home + b"/tmp"
        folder = None
        if above:
            # The data folder lies below a folder that is replaced, and must be seen inside the new one. That
            # one is not $TMPDIR then: who empties $TMPDIR must not find the whole working folder below it.
            own_tmp = home + b"/.tmp"
            os.makedirs(own_tmp, 0o700, exist_ok=True)
            os.chown(own_tmp, uid, uid)
            folder = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for target in self._shared_folders:
            if target not in above:
                self._replace(target, own_tmp)
        for target in above:
            self._replace(target, own_tmp)
        if folder is not None:
            os.makedirs(home, exist_ok=True)
            kernel.mount(b"/proc/self/fd/%d" % folder, home, None, kernel.MS_BIND)
            os.close(folder)

    @staticmethod
    def _replace(target: bytes, own_tmp: bytes) -> None:
        if target == _SHARED_MEMORY:
            flags = kernel.MS_NOSUID | kernel.MS_NODEV
            kernel.mount(b"shm", target, b"tmpfs", flags, _SHARED_MEMORY_OPTIONS)
        else:
            kernel.mount(own_tmp, target, None, kernel.MS_BIND)

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
    from collections.abc import Callable
