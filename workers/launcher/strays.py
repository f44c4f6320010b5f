"""Processes of a container that its engine has forgotten: found by their control group, and ended.

An engine that is killed in the middle of a start may leave the container's processes running while it says,
after its restart, that the container was never started. Neither a signal nor a forced removal through the
engine reaches them then. Their control group bears the container's id. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time

ROOT = "/sys/fs/cgroup"
#: Any of them will do where each has a tree of its own (cgroup v1): engines put a container into all.
_TREES = ("pids", "memory", "cpu", "systemd")


def alive(identity: str, root: str = ROOT) -> bool:
    """Does anything of the container with this id live on this machine?"""
    return any(_processes(group) for group in _groups(identity, root))


def left(identity: str, root: str = ROOT) -> bool:
    """Is the container's control group on this machine, alive or not? False when its engine is elsewhere."""
    return bool(_groups(identity, root))


def end(identity: str, patience_s: float = 5.0, root: str = ROOT) -> str:
    """Kill what lives of the container with this id (64 hexadecimal digits) on this machine.

    Returns why something may still live, "" when nothing does. An engine elsewhere has no group here.
    """
    deadline = time.monotonic() + patience_s
    problem = ""
    while groups := _groups(identity, root):
        living = [pid for group in groups for pid in _processes(group)]
        if not living:
            return ""
        problem = _kill(groups, living) or f"its processes {living} do not end"
        if time.monotonic() > deadline:
            return problem
        time.sleep(0.02)
    return ""


def _groups(identity: str, root: str) -> list[str]:
    """The control groups of a container, whatever an engine calls them (<id>, docker-<id>.scope)."""
    if not re.fullmatch(r"[0-9a-f]{64}", identity):
        return []
    if not os.path.exists(os.path.join(root, "cgroup.controllers")):
        trees = (os.path.join(root, name) for name in _TREES)
        root = next((tree for tree in trees if os.path.isdir(tree)), root)
    found, pending = [], [root]
    while pending:  # no recursion: a container may nest groups as deep as it likes
        folder = pending.pop()
        if identity in folder:
            found.append(folder)
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            pending += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return found


def _processes(group: str) -> list[int]:
    with contextlib.suppress(OSError), open(os.path.join(group, "cgroup.procs")) as file:
        return [int(word) for word in file.read().split()]
    return []


def _kill(groups: list[str], living: list[int]) -> str:
    """Why they cannot be killed; "" when they were told to end."""
    with contextlib.suppress(OSError):  # cgroup v2: all at once, also what is not visible from here
        for group in groups:
            _kill_group(group)
        return ""
    try:
        for pid in living:
            if pid <= 0:
                return "its processes are not visible from here"
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return f"this user may not end its processes {living}"
    return ""


def _kill_group(group: str) -> None:
    file = os.open(os.path.join(group, "cgroup.kill"), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, b"1")
    finally:
        os.close(file)
