"""The disk that a run's working folder takes, counted by descriptor: any depth, any name, no link followed.

Also what its processes have deleted and still hold open. Files count what they take on the disk, and 4 KiB
at least, so that the disk's room for names is shared, too. Standard library only.
"""

from __future__ import annotations

import os
import stat

from . import watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

LEAST = 4096  # bytes that a file counts at least
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_STEP = 64  # entries between two looks at the clock
_TORN = 3  # counts in a row that a run may tear by moving folders while it seems to be over its limit


class Disk(watched.Watched):
    """The working folder of this process, and the run below it."""

    def __init__(self, limit: int, mode: str) -> None:
        super().__init__(limit)
        self._mode = mode
        self._before = 0  # what the whole file system held when the last count began
        self._torn = 0

    def guess(self) -> int:
        """What was counted, and all that the file system has taken since, whoever it was."""
        return self.found + max(0, _taken() - self._before)

    def count(self) -> Iterator[int]:
        self._before = _taken()
        self._seen: set[int] = set()
        self._sum = 0
        root = os.open(".", _FOLDER)
        self._device = os.fstat(root).st_dev
        whole = yield from self._walk(root)
        for process in watched.members(self._mode):
            for inode, size, names in watched.held(process, self._device):
                if names == 0 and inode not in self._seen:
                    self._seen.add(inode)
                    self._sum += max(size, LEAST)
            yield self._sum
        self._torn = 0 if whole or self._guess <= self.limit else self._torn + 1
        if self._torn >= _TORN:
            yield self._guess

    def _walk(self, here: int) -> Generator[int, None, bool]:
        """False when a folder was moved away under us. Takes the descriptor over."""
        above: list[tuple[int, list[str]]] = []  # of each folder above: its inode, its folders still to come
        try:
            waiting = yield from self._scan(here)
            while waiting or above:
                if waiting:
                    below = self._enter(here, waiting.pop())
                    if below is None:
                        continue
                    above.append((os.fstat(here).st_ino, waiting))
                    os.close(here)
                    here = below
                    waiting = yield from self._scan(here)
                else:
                    inode, waiting = above.pop()
                    below, here = here, os.open("..", _FOLDER, dir_fd=here)
                    os.close(below)
                    if os.fstat(here).st_ino != inode:
                        return False
        except OSError:
            return False
        finally:
            os.close(here)
        return True

    def _scan(self, folder: int) -> Generator[int, None, list[str]]:
        """Add the files of one folder; returns the names of its folders."""
        waiting: list[str] = []
        try:
            entries = os.scandir(folder)
        except OSError:
            return waiting  # of an ordinary user's command, which has closed it against us
        with entries:
            for number, entry in enumerate(entries):
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if status.st_dev != self._device:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(entry.name)
                elif status.st_nlink > 1:
                    if status.st_ino in self._seen:
                        continue
                    self._seen.add(status.st_ino)
                self._sum += max(status.st_blocks * 512, LEAST)
                if number % _STEP == 0:
                    yield self._sum
        yield self._sum
        return waiting

    def _enter(self, folder: int, name: str) -> int | None:
        try:
            below = os.open(name, _FOLDER, dir_fd=folder)
        except OSError:
            return None
        if os.fstat(below).st_dev != self._device:
            os.close(below)
            return None
        return below


def _taken() -> int:
    """What the file system of this process's working folder holds, names included."""
    there = os.statvfs(".")
    blocks = (there.f_blocks - there.f_bfree) * there.f_frsize
    return blocks + (there.f_files - there.f_ffree) * LEAST
