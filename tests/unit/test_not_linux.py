"""On a machine that is not Linux: a sentence that says what to do, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.cluster import ROOT


def _on_a_mac(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a module or a file of the project where Python says that this is macOS."""
    run = f"run_path({program!r}" if program.endswith(".py") else f"run_module({program!r}, alter_sys=True"
    code = f"import runpy, sys; sys.platform = 'darwin'; runpy.{run}, run_name='__main__')"
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("config.local", ["demo"]),
        ("config.local", ["up"]),
        ("config.local", ["worker"]),
        ("config.local", ["manage", "create_token", "admin"]),
        ("manage.py", ["node"]),
        ("manage.py", ["callbacks"]),
        ("manage.py", ["network"]),
    ],
)
def test_what_needs_linux_says_so(program: str, arguments: list[str]) -> None:
    done = _on_a_mac(program, *arguments)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "needs Linux, and this is darwin: use `docker compose up`" in line


def test_the_launcher_says_so() -> None:
    done = _on_a_mac("workers/launcher/__main__.py", "/nowhere")
    assert done.returncode == 1
    assert done.stderr == "the launcher needs Linux, and this is darwin: run the node's worker on Linux\n"
