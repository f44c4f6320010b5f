"""Which control groups a launcher takes: by the texts of /proc/self and real folders."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from workers.launcher import cgroup

GIB = 1 << 30


def mounts(*lines: tuple[str, str, str, str]) -> str:
    """(root, mount point, kind, options) as /proc/self/mountinfo has them, with a mount of another kind."""
    known = [f"{30 + i} 25 0:{i} {a} {b} rw - {kind} {kind} {o}" for i, (a, b, kind, o) in enumerate(lines)]
    return "\n".join(["25 1 8:1 / / rw shared:1 - ext4 /dev/root rw", *known]) + "\n"


def summary(
    found: tuple[list[cgroup.Place], list[str]],
) -> tuple[list[tuple[int, str, str, tuple[str, ...]]], str]:
    places, reasons = found
    return [(each.version, each.folder, each.home, each.controllers) for each in places], "; ".join(reasons)


def test_version_1_makes_groups_below_its_own(tmp_path: Path) -> None:
    own = "4:memory:/outer/x\n3:cpu,cpuacct:/\n1:name=systemd:/s\n0::/\n"
    found = mounts(
        ("/", f"{tmp_path}/memory", "cgroup", "rw,memory"),
        ("/", f"{tmp_path}/cpu", "cgroup", "rw,cpu,cpuacct"),
        ("/", f"{tmp_path}/unified", "cgroup2", "rw"),
    )
    memory, cpu = f"{tmp_path}/memory/outer/x", f"{tmp_path}/cpu"
    assert summary(cgroup.choose("auto", own, found)) == (
        [(1, memory, memory, ("memory",)), (1, cpu, cpu, ("cpu",))],
        "",
    )
    # Or below the one that an operator names, in every hierarchy; it is made.
    assert summary(cgroup.choose("/gantry", own, found)) == (
        [(1, f"{tmp_path}/memory/gantry", memory, ("memory",)), (1, f"{tmp_path}/cpu/gantry", cpu, ("cpu",))],
        "",
    )
    assert Path(tmp_path, "memory", "gantry").is_dir()


def test_a_container_sees_its_own_part_of_a_hierarchy_only(tmp_path: Path) -> None:
    """Catches: a path that is right on the host, and another container's group that is not mounted here."""
    own = "4:memory:/docker/abc\n3:cpu:/docker/other\n"
    found = mounts(
        ("/docker/abc", f"{tmp_path}/memory", "cgroup", "rw,memory"),
        ("/docker/abc", f"{tmp_path}/cpu", "cgroup", "rw,cpu"),
    )
    memory = f"{tmp_path}/memory"
    assert summary(cgroup.choose("auto", own, found)) == (
        [(1, memory, memory, ("memory",))],
        "no hierarchy with cpu is mounted here",
    )


def test_version_2_only_below_what_was_left_to_it(tmp_path: Path) -> None:
    """A group with processes cannot share out memory, and one of somebody else's is not ours to change."""
    service = tmp_path / "system.slice" / "gantry-worker.service"
    (service / "worker").mkdir(parents=True)
    own = "0::/system.slice/gantry-worker.service/worker\n"
    found = mounts(("/", str(tmp_path), "cgroup2", "rw,nsdelegate"))
    assert summary(cgroup.choose("auto", own, found)) == (
        [],
        f"cgroup v2: {service}/worker is not below a group that was left to this worker",
    )
    os.setxattr(service, "user.delegate", b"1")
    places, why = summary(cgroup.choose("auto", own, found))
    assert (places, why) == ([], f"memory, cpu (v2): {service}: No such file or directory")
    (service / "cgroup.subtree_control").touch()
    assert summary(cgroup.choose("auto", own, found)) == (
        [(2, str(service), f"{service}/worker", ("memory", "cpu"))],
        "",
    )
    assert (service / "cgroup.subtree_control").read_text() == "+memory +cpu"


def test_the_top_of_a_hierarchy_is_nobodys_to_leave(tmp_path: Path) -> None:
    os.setxattr(tmp_path, "user.delegate", b"1")
    found = mounts(("/", str(tmp_path / "in"), "cgroup2", "rw"))
    places, why = summary(cgroup.choose("auto", "0::/\n", found))
    assert (places, why) == (
        [],
        f"cgroup v2: {tmp_path}/in is not below a group that was left to this worker",
    )


@pytest.mark.parametrize("own", ["", "0::/\n", "4:memory:/\n"])
def test_a_machine_without_any(own: str) -> None:
    assert summary(cgroup.choose("auto", own, mounts())) == (
        [],
        "no hierarchy with memory and cpu is mounted here",
    )


@pytest.mark.parametrize(
    ("version", "cpu_m", "limits"),
    [
        (1, 500, {"memory.limit_in_bytes": GIB, "memory.memsw.limit_in_bytes": GIB, "cpu.shares": 512}),
        (1, 0, {"memory.limit_in_bytes": GIB, "memory.memsw.limit_in_bytes": GIB, "cpu.shares": 2}),
        (2, 500, {"memory.max": GIB, "memory.swap.max": 0, "cpu.weight": 50}),
        (2, 0, {"memory.max": GIB, "memory.swap.max": 0, "cpu.weight": 1}),
        (2, 200_000, {"memory.max": GIB, "memory.swap.max": 0, "cpu.weight": 10_000}),
    ],
)
def test_what_is_written_into_a_group(version: int, cpu_m: int, limits: dict[str, int]) -> None:
    place = cgroup.Place(version, "/f", "/h", ("memory", "cpu"))
    assert {file: value for file, value, _ in place.limits(GIB, cpu_m)} == limits


def test_a_folder_that_is_no_group_is_left_out_and_told(tmp_path: Path) -> None:
    """What is chosen is tried: it can be read-only, or have no control files at all."""
    place = cgroup.Place(1, str(tmp_path), str(tmp_path), ("memory",))
    groups = cgroup.Groups("/control", [place], "")
    assert (groups.has("memory"), groups.has("cpu")) == (0, 0)
    assert groups.reason == f"memory (v1) below {tmp_path}: {os.strerror(errno.ENOENT)}"
    assert not list(tmp_path.iterdir())


def test_switched_off() -> None:
    groups = cgroup.find("off", "/control")
    assert (groups.places, groups.reason) == ([], "switched off")
