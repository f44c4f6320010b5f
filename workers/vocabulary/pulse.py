"""A sign of life in a file, for a health check or a neighbour on the same machine.

One line: boot id, seconds since boot, words. Clocks that are set do not matter, a restart of the machine
does. Standard library only.
"""

from __future__ import annotations

import os
import time
from pathlib import Path


class Silent(Exception):
    """No sign of life, or an old one; the text says which."""


def write(path: Path, *words: str) -> None:
    """Replace the file as a whole. Raises OSError."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    line = f"{_boot()} {time.clock_gettime(time.CLOCK_BOOTTIME):.3f} {' '.join(words)}"
    new.write_text(" ".join(line.split()) + "\n")
    new.rename(path)


def read(path: Path, within_s: float) -> list[str]:
    """The words of a sign of life that is at most so old. Raises Silent."""
    try:
        boot, at, *words = path.read_text().split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - float(at)
    except (OSError, ValueError) as error:
        raise Silent(f"{path} cannot be read ({error})") from None
    if boot != _boot() or age > within_s:
        raise Silent(f"{path} is {age:.0f} s old" if boot == _boot() else f"{path} is of another boot")
    return words


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
