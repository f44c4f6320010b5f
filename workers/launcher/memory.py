"""The memory of a run as a whole, where no control group holds it. Standard library only.

Counted are the private memory of its processes, each page once however many share it after a fork, and its
shared memory: mappings, memfd, files in its own /dev/shm, System V segments. The processes tell what is
mapped; their open files, /dev/shm and the segments tell the rest. The greater of the two counts, since most
is both: a run that keeps apart what it maps and what it opens can have twice its limit of shared memory.
Page cache is not counted, as the kernel takes it back. Source: proc(5), smaps_rollup.
"""

from __future__ import annotations

import contextlib
import os

from . import isolation, watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE = os.sysconf("SC_PAGE_SIZE")
_KIB = 1024
_SEGMENT_RSS = 14  # the column of /proc/sysvipc/shm with the bytes that a segment really has


class Memory(watched.Watched):
    def __init__(self, limit: int, mode: str, uid: int | None) -> None:
        super().__init__(limit)
        self._mode = mode
        self._uid = uid
        self._shared = 0  # what was counted of shared memory, and what the machine had then
        self._machine = 0

    def guess(self) -> int:
        """All that is resident, with every page as often as it is mapped, and the machine's new shared."""
        resident = sum(map(_resident, watched.members(self._mode)))
        return resident + self._shared + max(0, _machine() - self._machine)

    def count(self) -> Iterator[int]:
        self._machine = _machine()
        file = os.memfd_create("gantry", os.MFD_CLOEXEC)
        device = os.fstat(file).st_dev  # where the kernel keeps memfds, shared mappings and segments
        os.close(file)
        private = mapped = 0
        named = self._in_the_open() if self._mode == isolation.NAMESPACES else 0
        seen: set[int] = set()
        for process in watched.members(self._mode):
            anonymous, shared = self._of(process)
            private, mapped = private + anonymous, mapped + shared
            with watched.acting_as(self._uid if self._mode == isolation.UIDS else None):
                files = list(watched.held(process, device))
            for inode, size, _ in files:
                if inode not in seen:
                    seen.add(inode)
                    named += size
            self._shared = max(mapped, named)
            yield private + self._shared

    @staticmethod
    def _in_the_open() -> int:
        """What the run's own /dev/shm and its System V segments hold."""
        found = 0
        with contextlib.suppress(OSError):
            there = os.statvfs("/dev/shm")  # noqa: S108 (the run's own)
            found += (there.f_blocks - there.f_bfree) * there.f_frsize
        with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/sysvipc/shm") as file:
            next(file)
            found += sum(int(line.split()[_SEGMENT_RSS]) for line in file)
        return found

    def _of(self, process: int) -> tuple[int, int]:
        """(private, shared) bytes of a process, pages that several map in parts. What hides counts fully."""
        for uid in (None, self._uid) if self._mode == isolation.UIDS else (None,):
            with contextlib.suppress(OSError), watched.acting_as(uid):
                fields = _fields(f"/proc/{process}/smaps_rollup")
                if "Pss_Anon" in fields:
                    return fields["Pss_Anon"] + fields.get("SwapPss", 0), fields["Pss_Shmem"]
                return fields["Pss"] + fields.get("SwapPss", 0), 0  # Linux before 5.4
        with contextlib.suppress(OSError):
            fields = _fields(f"/proc/{process}/status")
            return fields.get("RssAnon", 0) + fields.get("VmSwap", 0), fields.get("RssShmem", 0)
        return 0, 0


def _fields(path: str) -> dict[str, int]:
    """The lines "Name:   123 kB" of such a file, in bytes."""
    found: dict[str, int] = {}
    with open(path, "rb") as file:
        for line in file.read().splitlines():
            words = line.split()
            if len(words) == 3 and words[2] == b"kB":
                found[words[0].rstrip(b":").decode()] = int(words[1]) * _KIB
    return found


def _resident(process: int) -> int:
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{process}/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE
    return 0


def _machine() -> int:
    return _fields("/proc/meminfo").get("Shmem", 0)
