"""A launcher without isolation: processes of the worker's own, as its own user, root's too."""

from __future__ import annotations

import os
from pathlib import Path

from tests.unit.launcher.launching import PATIENCE
from workers.runtimes.launched.client import LauncherClient
from workers.runtimes.launched.records import StartRequest, fresh_environment


def test_runs_are_of_this_user(tmp_path: Path) -> None:
    """Catches a mover that may not read what its worker may, or that sees other files."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "own").write_text("of this user")
    (tmp_path / "own").chmod(0o600)
    client = LauncherClient(tmp_path / "control", isolation="none")
    try:
        assert client.ensure().isolation == "none"
        script = f"cat {tmp_path}/own; id -u; readlink /proc/self/ns/mnt"
        argv = ["/bin/sh", "-c", script]
        state = client.start(StartRequest("1-1", argv, fresh_environment(scratch, {}), scratch))
        assert state.started is not None
        assert (state.started.uid, state.started.isolation) == (os.getuid(), "none")
        ended = client.wait("1-1", PATIENCE)
        assert ended is not None
        said = client.output_path("1-1", "stdout").read_text()
        here = Path("/proc/self/ns/mnt").readlink()
        assert said == f"of this user{os.getuid()}\n{here}\n"
    finally:
        client.quit()
        client.close()
