"""Ends what a test process leaves when it could not end it itself: killed, or timed out.

    python -m tests.support.remains <folder of the session>

Waits until its standard input ends, which it does with the process that holds the other end. Whatever then
still names the session's folder (its servers; nodes, whose environment says where the database is) or one
that stands beside it (``also``) is killed, and the folders are removed. After an orderly end there is nothing
to do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from config.local.running import send
from config.local.temporary import processes_of
from tests.support.waiting import wait_until


def end_with_me(folder: Path) -> None:
    """Start the watch over this process. The pipe closes with it, however it ends."""
    reading, writing = os.pipe()
    subprocess.Popen(
        [sys.executable, "-m", "tests.support.remains", str(folder)],
        stdin=reading,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).resolve().parents[2],
        start_new_session=True,
    )
    os.close(reading)
    _kept.append(writing)


def also(session: Path, folder: Path) -> Path:
    """A folder of a test that is not in the session's, because names of sockets must be short; returns it.

    Guards and launchers, which outlive their nodes, name no other.
    """
    with (session / _BESIDE).open("a") as beside:
        beside.write(f"{folder}\n")
    return folder


#: Below the session's folder: those beside it, one a line.
_BESIDE = "beside"
#: Open for as long as this process lives; not inherited by what it starts.
_kept: list[int] = []


def _end_everything(folder: Path) -> None:
    try:
        folders = [folder, *map(Path, (folder / _BESIDE).read_text().splitlines())]
    except OSError:
        folders = [folder]

    def gone() -> bool:
        left = [process for each in folders for process in processes_of(each)]
        for process in left:
            send(int(process.split()[0]), signal.SIGKILL)
        return not left

    with contextlib.suppress(AssertionError):  # nobody is left to be told
        wait_until(gone, 30, 0.1)
    for each in folders:
        shutil.rmtree(each, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    _end_everything(Path(sys.argv[1]))
