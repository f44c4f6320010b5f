"""`make test` from outside: on projects of a few lines, with tests that pass, break, flake, kill and hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import ROOT
from tests.support.machine import alive
from tests.support.waiting import wait_until

#: Only the plugins that the runner needs: those that installed packages bring take half of a start.
_INI = """[pytest]
addopts = --strict-markers -p no:cacheprovider -p xdist.plugin -p pytest_timeout -p _hypothesis_pytestplugin
    -p tests.support.passes
timeout_method = thread
"""
#: ``tries()`` counts the calls of a test over all processes.
_HEAD = """
import os, pathlib, time, pytest
def tries(name):
    path = pathlib.Path(__file__).with_name(name)
    with path.open("a") as out: out.write(".")
    return len(path.read_text())
"""
_FINE = "def test_fine(): pass\n"
_ONCE = "def test_once(): assert tries('once') > 1\n"


class Project:
    """Files with tests in a folder of their own, and the program that runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pytest.ini").write_text(_INI)

    def file(self, path: str, text: str) -> None:
        whole = self.folder / path
        whole.parent.mkdir(exist_ok=True)
        whole.write_text(_HEAD + text)

    def tries(self, path: str) -> int:
        return len((self.folder / path).read_text())

    def start(self, *arguments: str, workers: int = 2) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.tools.run", str(workers), *arguments],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, workers: int = 0) -> tuple[int, str]:
        process = self.start(*arguments, workers=workers)
        text, _ = process.communicate(timeout=300)
        return process.returncode, text


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def last(text: str) -> str:
    return text.rstrip().splitlines()[-1]


def test_a_flaky_one_is_green_and_told(project: Project) -> None:
    project.file("unit/test_a.py", _FINE + _ONCE)
    project.file("faults/test_b.py", _FINE)
    code, text = project.run(workers=2)
    assert code == 0, text
    assert last(text) == "3 passed, 0 failed"
    told = text[text.index(" FLAKY ") :]
    assert "FLAKY unit/test_a.py::test_once: passed alone, 1 of 1; not in docs/flaky.md" in told
    assert "at load" in told
    assert "assert 1 > 1" in told
    assert "pass 1: 2 tests" in text
    assert "pass 3: 1 tests" in text


def test_a_broken_one_is_red_with_both_failures(project: Project) -> None:
    """The flaky one beside it makes nothing better. Catches a judge that makes everything green."""
    project.file("unit/test_a.py", _FINE + _ONCE + "def test_broken(): assert tries('broken') == 'never'\n")
    code, text = project.run()
    assert code == 1, text
    assert last(text) == "2 passed, 1 failed"
    told = text[text.index(" FAILED unit/test_a.py::test_broken ") :]
    assert "assert 1 == 'never'" in told
    assert "assert 2 == 'never'" in told


@pytest.mark.parametrize(("bad_try", "code"), [(0, 0), (5, 1)])
def test_a_fault_must_pass_five_times(project: Project, bad_try: int, code: int) -> None:
    project.file("faults/test_a.py", f"def test_rare(): assert tries('rare') not in (1, {bad_try})\n")
    found, text = project.run()
    assert found == code, text
    assert project.tries("faults/rare") == (6 if code == 0 else 5)


def test_killed_workers_stop_nobody_else(project: Project) -> None:
    """One test ends its process, one hangs until pytest-timeout does it: both are named, all others run."""
    project.file(
        "unit/test_a.py",
        "def test_kills(): os._exit(7) if tries('kills') == 1 else None\n"
        "@pytest.mark.timeout(2)\ndef test_hangs(): time.sleep(60 if tries('hangs') == 1 else 0)\n"
        "@pytest.mark.parametrize('n', range(20))\ndef test_other(n): pass\n",
    )
    code, text = project.run(workers=1)
    assert code == 0, text
    assert last(text) == "22 passed, 0 failed"
    assert "crashed while running 'unit/test_a.py::test_kills'" in text
    assert "FLAKY unit/test_a.py::test_hangs: passed alone" in text


def test_an_end_without_verdict_is_red(project: Project) -> None:
    """Nothing selected, a file that cannot be read, four failures: red at once, nothing is asked again."""
    project.file(
        "unit/test_a.py", _FINE + "\n".join(f"def test_{n}(): assert tries('n') < 0" for n in range(4))
    )
    code, text = project.run(workers=2)
    assert (code, last(text)) == (1, "1 passed, 4 failed")
    assert "once more" not in text
    code, text = project.run("-k", "nobody")
    assert (code, last(text)) == (1, "0 passed, 1 failed")
    assert "no test selected" in text
    assert project.run("-k", "fine")[0] == 0
    assert project.run("--collect-only", "-q")[0] == 0
    project.file("unit/test_b.py", "import nothing_of_this_name\n")
    code, text = project.run("-k", "fine", workers=2)
    assert code == 1
    assert "nothing_of_this_name" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_everything(project: Project, number: signal.Signals) -> None:
    project.file(
        "unit/test_a.py", "def test_long(): tries('long'); tries(str(os.getpid())); time.sleep(600)\n"
    )
    process = project.start(workers=1)
    try:
        wait_until((project.folder / "unit/long").exists, why="the test runs")
        worker = wait_until(
            lambda: [int(path.name) for path in (project.folder / "unit").iterdir() if path.name.isdigit()],
            why="it says where",
        )[0]
        process.send_signal(number)
        text, _ = process.communicate(timeout=120)
        assert process.returncode == 128 + number, text
        wait_until(lambda: not alive(worker), why="the worker is gone")
        assert not project.tries("unit/long") > 1
    finally:
        process.kill()
