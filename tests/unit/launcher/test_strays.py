"""Processes of a container that its engine has forgotten, in a tree like the kernel's control groups."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nested import nest
from tests.support.waiting import limit
from workers.launcher import strays
from workers.launcher.removal import remove

ID = "0123456789abcdef" * 4


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def group(folder: Path, *pids: int) -> None:
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))


@pytest.mark.parametrize(
    "where", [f"pids/docker/{ID}", f"memory/x/{ID}/inner", f"system.slice/docker-{ID}.scope"]
)
def test_whatever_the_engine_calls_the_group(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], where: str
) -> None:
    """Both versions of control groups, both of the engine's ways to name one."""
    if where.startswith("system"):
        (tmp_path / "cgroup.controllers").touch()
    group(tmp_path / where, sleeper.pid)
    with subprocess.Popen(["sleep", "600"]) as bystander:
        group(tmp_path / where.replace(ID, "f" * 64), bystander.pid)
        assert strays.alive(ID, str(tmp_path))
        said = strays.end(ID, 0.0, str(tmp_path))
        assert sleeper.wait(limit(60)) == -9
        assert bystander.poll() is None
        bystander.kill()
    assert "do not end" in said  # these files are no kernel's: they still name it


def test_nothing_is_ended_by_a_name_that_is_no_id(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    group(tmp_path / "pids/docker", sleeper.pid)
    for text in ("", "docker", "pids", ID[:12]):
        assert strays.end(text, 0.0, str(tmp_path)) == ""
    assert sleeper.poll() is None


def test_a_group_without_processes_and_no_group(tmp_path: Path) -> None:
    group(tmp_path / "pids/docker" / ID)
    assert strays.end(ID, 0.0, str(tmp_path)) == ""
    assert strays.end("f" * 64, 0.0, str(tmp_path)) == ""
    assert not strays.alive(ID, str(tmp_path))
    assert strays.left(ID, str(tmp_path)), "it was on this machine"
    assert not strays.left("f" * 64, str(tmp_path)), "it may be on another one"


def test_processes_of_another_namespace_are_no_success(tmp_path: Path) -> None:
    group(tmp_path / "pids/docker" / ID, 0)
    assert "not visible" in strays.end(ID, 0.0, str(tmp_path))


def test_groups_may_be_nested_as_deep_as_a_container_likes(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    """Catches a look that recurses."""
    top = tmp_path / "pids" / "docker" / ID
    top.parent.mkdir(parents=True)
    nest(top, 1_100)
    (top / "cgroup.procs").write_text(f"{sleeper.pid}\n")
    try:
        assert strays.alive(ID, str(tmp_path))
    finally:
        remove(str(tmp_path / "pids"))  # pytest could not
