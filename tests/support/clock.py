"""Processes whose time of day is wrong, and may jump while they run.

The kernel's clock belongs to the whole machine, so Python's is replaced: a ``sitecustomize`` on PYTHONPATH
shifts ``time.time`` and its kin by the number of seconds that a file holds. Clocks that only count
(``monotonic``, CLOCK_BOOTTIME) are left alone, as a jump of the time of day leaves them alone. The node's
launcher runs without ``site``; it is started through a script that does the same.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

_SHIFT = """
import time as _time

_real = {name: getattr(_time, name) for name in ("time", "time_ns", "clock_gettime", "gmtime", "localtime")}


def _shift():
    try:
        with open(OFFSET) as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0


def _clock_gettime(clock):
    return _real["clock_gettime"](clock) + (_shift() if clock == _time.CLOCK_REALTIME else 0.0)


_time.time = lambda: _real["time"]() + _shift()
_time.time_ns = lambda: _real["time_ns"]() + int(_shift() * 1_000_000_000)
_time.clock_gettime = _clock_gettime
_time.gmtime = lambda seconds=None: _real["gmtime"](_time.time() if seconds is None else seconds)
_time.localtime = lambda seconds=None: _real["localtime"](_time.time() if seconds is None else seconds)
"""

_SITE = """
import sys

sys.executable = WRAPPER
"""

_LAUNCH = """
import runpy
import sys

del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Clock:
    """A wrong clock for processes started with ``**clock.env``; ``set`` makes it jump."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._offset = folder / "offset"
        self.set(0)
        head = f"OFFSET = {str(self._offset)!r}\nWRAPPER = {str(folder / 'python')!r}\n"
        (folder / "sitecustomize.py").write_text(head + _SHIFT + _SITE)
        (folder / "launch.py").write_text(head + _SHIFT + _LAUNCH)
        wrapper = folder / "python"
        # Called as: python -I -S -X utf8 <file or folder of the launcher> <arguments>
        wrapper.write_text(
            f'#!/bin/sh\nshift 4\nexec "{sys.executable}" -I -S -X utf8 "{folder / "launch.py"}" "$@"\n'
        )
        wrapper.chmod(0o755)
        self.env: dict[str, Any] = {"PYTHONPATH": str(folder)}

    def set(self, seconds: float) -> None:
        """From now on the time of day is wrong by so many seconds; 0 is right."""
        new = self._offset.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._offset)
