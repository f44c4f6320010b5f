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

_OUTPUT_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Handed:
    """Descriptors and facts for one shim. After the fork the launcher closes its copies with close()."""

    __slots__ = (
        "files", "folder", "group", "lock", "needs_walk", "pipes", "report", "uid", "uid_lock", "writing",
    )  # fmt: skip

    def __init__(self, order: Order, folder: str, lock: int, separate: Isolation) -> None:
        """Raises OSError; then nothing is left open but `lock`."""
        self.lock = lock
        self.folder = self.report = -1
        self.files: list[int] = []  # stdout, stderr
        self.pipes: list[int] = []  # what comes out of them goes into these files; -1: there is none
        self.writing: list[int] = []  # what the command gets as its stdout, stderr
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
                self._open(stream, whole=stream in order.whole)
        except BaseException:
            self.close()
            raise

    def _open(self, stream: str, *, whole: bool) -> None:
        flags = _OUTPUT_FLAGS | os.O_APPEND if whole else _OUTPUT_FLAGS
        file = os.open(stream, flags, 0o600, dir_fd=self.folder)
        self.files.append(file)
        if whole:  # code of our own writes it, and waits itself for a full disk: it gets the file
            self.pipes.append(-1)
            self.writing.append(os.dup(file))
            return
        reading, writing = os.pipe()
        self.pipes.append(reading)
        self.writing.append(writing)
        os.set_blocking(reading, False)
        # Whoever has it may open it again to write (/dev/stdout), nobody to read: no run takes its own log.
        os.fchmod(writing, 0o222)

    def let_go(self) -> None:
        """The command has its ends of the pipes by now: ours are closed."""
        while self.writing:
            os.close(self.writing.pop())

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
        reading = [file for file in self.pipes if file >= 0]
        kept = [self.folder, self.lock, self.report, *self.files, *reading, *self.writing]
        if self.group is not None:
            kept += self.group.kept()
        return kept if self.uid_lock is None else [*kept, self.uid_lock]

    def close(self) -> None:
        """The launcher's copies, all but the lock."""
        uid_lock = -1 if self.uid_lock is None else self.uid_lock
        for file in (self.folder, self.report, *self.files, *self.pipes, uid_lock):
            if file >= 0:
                os.close(file)
        if self.group is not None:
            self.group.close()
        self.let_go()


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
