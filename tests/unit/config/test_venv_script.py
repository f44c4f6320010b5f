"""config/local/venv.sh with stand-ins for Python: which one it takes, what it says when none will do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "config" / "local" / "venv.sh"

#: Answers what venv.sh asks a Python: its version, the line for `installed`, an environment, pip.
_PYTHON = """#!/bin/sh
case "$*" in
    -) cat >/dev/null; echo {version} ;;
    "- "*) cat >/dev/null; shift; echo "$(cat "$@" | cksum | tr -d ' ') /base/{version} {version}.0 $PWD" ;;
    "-m venv "*) {venv}; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *pip*) {pip}; echo "$*" >>asked ;;
    *) exit 9 ;;
esac
"""


class Machine:
    """A checkout, and a PATH with the Pythons that a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.path, self.usr = folder / "gantry", folder / "bin", folder / "usr"
        for each in (self.checkout / "config" / "local", self.path, self.usr):
            each.mkdir(parents=True)
        # What this machine has in /usr/bin is not part of the test.
        text = SCRIPT.read_text().replace("/usr/local/bin/", "/nowhere/").replace("/usr/bin/", f"{self.usr}/")
        (self.checkout / "config" / "local" / "venv.sh").write_text(text)
        (self.checkout / "lock.txt").write_text("one==1\n")

    def python(
        self, name: str, version: str = "", *, venv: str = ":", pip: str = ":", folder: Path | None = None
    ) -> Path:
        program = (folder or self.path) / name
        program.write_text(_PYTHON.format(version=version or name.removeprefix("python"), venv=venv, pip=pip))
        program.chmod(0o755)
        return program

    def stand_in(self, name: str) -> None:
        """What a version manager leaves on PATH for a Python that is not switched on."""
        program = self.path / name
        program.write_text(f"#!/bin/sh\necho '{name}: command not found' >&2\nexit 127\n")
        program.chmod(0o755)

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "config/local/venv.sh", "lock.txt"],
            cwd=self.checkout,
            env={"PATH": f"{self.path}:/bin", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def made_of(self, **environment: str) -> str:
        """The version in .venv/installed after a run that must succeed."""
        done = self.run(**environment)
        assert (done.returncode, done.stderr) == (0, "")
        lines = (self.checkout / ".venv" / "installed").read_text().splitlines()
        assert lines[0] == lines[1]
        return lines[0].split()[2]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def _hide_pythons_of_bin(machine: Machine) -> None:
    """/bin may be /usr/bin, with Pythons of its own: names that come first on PATH and do not run."""
    for name in ("python3.14", "python3.13", "python3.12", "python3.11", "python3", "python"):
        if not (machine.path / name).exists():
            machine.stand_in(name)


def test_the_newest_that_runs_is_taken(machine: Machine) -> None:
    """Catches a stand-in that is taken for the newest Python."""
    machine.python("python3.11")
    machine.python("python3.13")
    _hide_pythons_of_bin(machine)
    assert machine.made_of() == "3.13.0"
    assert "install -qq" in (machine.checkout / "asked").read_text()


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_a_python_without_its_number_is_found(machine: Machine, version: str) -> None:
    machine.python("python3", version)
    _hide_pythons_of_bin(machine)
    assert machine.made_of() == f"{version}.0"


def test_the_systems_own_folder_is_looked_at(machine: Machine) -> None:
    """PATH may begin with a version manager's stand-ins, which hide the machine's own Python."""
    machine.python("python3.13", folder=machine.usr)
    machine.python("python3.12")
    _hide_pythons_of_bin(machine)
    assert machine.made_of() == "3.13.0"


@pytest.mark.parametrize("venv", ["exit 1", 'case "$*" in *--without-pip*) ;; *) exit 1 ;; esac'])
def test_one_that_makes_no_environment_is_passed_over(machine: Machine, venv: str) -> None:
    """Catches an end of everything because the newest Python has no venv, or no ensurepip and no pip."""
    machine.python("python3.13", venv=venv, pip="exit 1")
    machine.python("python3.12")
    _hide_pythons_of_bin(machine)
    assert machine.made_of() == "3.12.0"


def test_a_newer_python_changes_no_environment_that_works(machine: Machine) -> None:
    machine.python("python3.12")
    _hide_pythons_of_bin(machine)
    assert machine.made_of() == "3.12.0"
    machine.python("python3.14")
    assert machine.run().stdout == ""
    (machine.checkout / "lock.txt").write_text("one==2\n")
    assert machine.made_of() == "3.12.0"
    assert len((machine.checkout / "asked").read_text().splitlines()) == 4, "twice: is there a pip, install"


def test_python_names_another_which_then_stays(machine: Machine) -> None:
    older = machine.python("python3.11")
    machine.python("python3.12")
    _hide_pythons_of_bin(machine)
    assert machine.made_of() == "3.12.0"
    assert machine.made_of(PYTHON=str(older)) == "3.11.0"
    assert machine.made_of() == "3.11.0"
    assert machine.made_of(PYTHON="python3.12") == "3.12.0"


def test_an_environment_that_was_moved_is_made_again(machine: Machine) -> None:
    machine.python("python3.12")
    _hide_pythons_of_bin(machine)
    machine.made_of()
    machine.checkout = machine.checkout.rename(machine.checkout.with_name("elsewhere"))
    assert machine.run().stdout.startswith("Making .venv")


def test_an_environment_without_packages_is_filled_and_not_made_again(machine: Machine) -> None:
    """.ci/run makes one, copies packages into it and leaves the rest to the script."""
    python = machine.python("python3.12")
    _hide_pythons_of_bin(machine)
    machine.made_of()
    (machine.checkout / ".venv" / "installed").unlink()
    (machine.checkout / ".venv" / "copied").touch()
    assert machine.made_of(PYTHON=str(python)) == "3.12.0"
    assert (machine.checkout / ".venv" / "copied").exists()


def test_a_python_that_will_not_do_is_refused_by_name(machine: Machine) -> None:
    """Catches that somebody's choice is passed over in silence."""
    machine.python("python3.12")
    machine.stand_in("python3.13")
    _hide_pythons_of_bin(machine)
    for name in ("python3.13", "/nowhere/python3.11", "python3.10"):
        done = machine.run(PYTHON=name)
        assert done.returncode == 1
        assert done.stderr.startswith(
            f"make: PYTHON={name} does not run or is no CPython 3.11, 3.12, 3.13 or 3.14"
        )
    assert not (machine.checkout / ".venv").exists()


def test_without_any_the_four_versions_are_named(machine: Machine) -> None:
    machine.python("python3.12", venv="exit 1", pip="exit 1")
    _hide_pythons_of_bin(machine)
    done = machine.run()
    assert done.returncode == 1
    assert done.stderr.startswith(
        "make: Python 3.11, 3.12, 3.13 or 3.14 is needed, and none was found that works."
    )
    assert "python3.12 cannot make virtual environments." in done.stderr
    assert not (machine.checkout / ".venv").exists()
