"""What the launcher prepares for one shim before the fork, and what the worker's files in it become.

Standard library only. It is done here, not in the shim, since it is cheaper here: a shim pays for each page
that it touches. Only what can take long (many files to hand over) is left to the shim.
"""

from __future__ import annotations

import contextlib
import os

from . import control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cgroup import Group
    from .isolation import Isolation
    from .orders import Order

_OUTPUT_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Handed:
    """Descriptors and facts for one shim. After the fork the launcher closes its copies with close()."""

    __slots__ = ("files", "folder", "group", "lock", "needs_walk", "report", "uid", "uid_lock")

    def __init__(self, order: Order, folder: str, lock: int, separate: Isolation) -> None:
        """Raises OSError; then nothing is left open but `lock`."""
        self.lock = lock
        self.folder = self.report = -1
        self.files: list[int] = []  # stdout, stderr
        self.uid: int | None = None
        self.uid_lock: int | None = None
        self.group: Group | None = None
        self.needs_walk = False  # the worker put files into the scratch folder
        try:
            self.folder = os.open(folder, _FOLDER_FLAGS)
            if separate.uids is not None:
                self.uid, self.uid_lock = separate.uids.claim()
            if separate.groups is not None:
                self.group = separate.groups.make(order)
            self._own_scratch(order.scratch)
            for stream in control.STREAMS:
                file = os.open(stream, _OUTPUT_FLAGS, 0o600, dir_fd=self.folder)
                self.files.append(file)
                if self.uid is not None:
                    os.fchown(file, self.uid, self.uid)  # so that the command can open /dev/stdout again
        except BaseException:
            self.close()
            raise

    def _own_scratch(self, scratch: str) -> None:
        folder = os.open(scratch, _FOLDER_FLAGS)
        try:
            self.needs_walk = bool(os.listdir(folder))
            with contextlib.suppress(FileExistsError):
                os.mkdir("tmp", 0o700, dir_fd=folder)
            if self.uid is not None:
                os.chown("tmp", self.uid, self.uid, dir_fd=folder, follow_symlinks=False)
                os.fchown(folder, self.uid, self.uid)
            os.fchmod(folder, 0o700)
        finally:
            os.close(folder)

    def kept(self) -> list[int]:
        """The descriptors that a shim does not close."""
        kept = [self.folder, self.lock, self.report, *self.files]
        if self.group is not None:
            kept += self.group.kept()
        return kept if self.uid_lock is None else [*kept, self.uid_lock]

    def close(self) -> None:
        """The launcher's copies, all but the lock."""
        for file in (self.folder, self.report, *self.files, -1 if self.uid_lock is None else self.uid_lock):
            if file >= 0:
                os.close(file)
        if self.group is not None:
            self.group.close()


def own_tree(scratch: str, uid: int) -> None:
    """Everything that the worker put into the folder becomes the run's own. Links are not followed."""
    folder = os.open(scratch, _FOLDER_FLAGS)
    try:
        for _, names, files, parent in os.fwalk(".", dir_fd=folder, onerror=_raise):
            for name in names + files:
                os.chown(name, uid, uid, dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(folder)


def _raise(error: OSError) -> None:
    raise error
