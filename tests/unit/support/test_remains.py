"""Whoever is left when a test process dies: its servers, and what names a folder beside the session's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from config.local.temporary import processes_of
from tests.support import remains
from tests.support.cluster import ROOT
from tests.support.waiting import limit, wait_until


def test_what_names_the_session_or_a_folder_beside_it_is_ended(tmp_path: Path) -> None:
    session, beside, other = (tmp_path / name for name in ("session", "beside", "other"))
    for folder in (session, beside, other):
        folder.mkdir()
    assert remains.also(session, beside) == beside
    left = [subprocess.Popen(["sh", "-c", "sleep 3600", str(at)]) for at in (session, beside, other)]
    try:
        watch = subprocess.Popen(
            [sys.executable, "-m", "tests.support.remains", str(session)], stdin=subprocess.PIPE, cwd=ROOT
        )
        # It names the session's folder itself, and must not end itself for it.
        wait_until(lambda: len(processes_of(session)) == 2, why="the watch is there")
        watch.communicate(timeout=limit(60))
        assert [process.wait(limit(60)) for process in left[:2]] == [-9, -9]
        assert watch.returncode == 0
        assert left[2].poll() is None
        assert [folder.exists() for folder in (session, beside, other)] == [False, False, True]
    finally:
        for process in left:
            process.kill()
            process.wait()
