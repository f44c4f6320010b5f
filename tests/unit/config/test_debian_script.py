"""config/local/debian.sh with an apt that only notes what it is asked: one call, and no service starts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "config" / "local" / "debian.sh"
TOOLS = ("sh", "sort", "tr", "mktemp", "rm", "chmod", "tail", "cat", "printf")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with the ordinary tools, where everybody is root and apt writes down how it was called."""
    for name in TOOLS:
        (tmp_path / name).symlink_to(
            Path("/bin") / name if (Path("/bin") / name).exists() else f"/usr/bin/{name}"
        )
    _program(tmp_path / "id", "echo 0")
    _program(
        tmp_path / "apt-get",
        f'cd {tmp_path}; echo "$@" >> asked; test -x policy && ./policy; echo $? >> starts',
    )
    return tmp_path


def _program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def _run(machine: Path, needed: str) -> str:
    done = subprocess.run(
        ["/bin/sh", str(SCRIPT)],
        env={
            "PATH": str(machine),
            "NEEDED": needed,
            "POLICY": str(machine / "policy"),
            "TMPDIR": str(machine),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_what_is_missing_is_installed_at_once_and_started_never(machine: Path) -> None:
    """Catches an apt per package, recommended packages, a service that takes a test's port."""
    told = _run(machine, "cat:coreutils no-such-a:pkg-b no-such-b:pkg-a no-such-c:pkg-b")
    assert told == "Installing from Debian: pkg-a pkg-b\n"
    update, install = (machine / "asked").read_text().splitlines()
    assert update.endswith(" update")
    assert install.endswith(" install -y --no-install-recommends pkg-a pkg-b")
    assert (machine / "starts").read_text().split() == ["101", "101"], "services may start"
    assert not (machine / "policy").exists()


def test_a_policy_that_is_there_stays(machine: Path) -> None:
    _program(machine / "policy", "exit 104")
    _run(machine, "no-such-a:pkg-a")
    assert (machine / "policy").exists()
    assert (machine / "starts").read_text().split() == ["104", "104"]


def test_nothing_is_missing(machine: Path) -> None:
    assert _run(machine, "cat:coreutils sort:coreutils") == ""
    assert not (machine / "asked").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda machine: _program(machine / "id", "echo 1000"), "because this is not root"),
        (lambda machine: (machine / "apt-get").unlink(), "because there is no apt-get here"),
        (
            lambda machine: _program(machine / "apt-get", "echo one; echo E: no network; exit 100"),
            "because apt-get failed (E: no network)",
        ),
    ],
)
def test_what_cannot_be_installed_is_told_in_one_line(machine: Path, change: object, told: str) -> None:
    """Catches a test run that stops because of a machine without apt, and one that says nothing."""
    assert callable(change)
    change(machine)
    last = _run(machine, "no-such-a:pkg-a").splitlines()[-1]
    assert last == f"Not installed, {told}: pkg-a"
    assert not (machine / "policy").exists()


def test_programs_of_administrators_are_found(machine: Path) -> None:
    """Catches a dockerd that is installed again and again, since it lies in /usr/sbin."""
    found = next(
        path.name
        for path in sorted(Path("/usr/sbin").iterdir())
        if os.access(path, os.X_OK) and path.name.isalpha()
    )
    assert _run(machine, f"{found}:pkg-a") == ""
