"""A small disk of its own for one node: a tmpfs that only this node and what it starts can see.

As root in a mount namespace, as an ordinary user in a user namespace besides, in which the account stays what
it was. The disk goes with the last process that sees it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster import Cluster, Process


@dataclass(frozen=True)
class Disk:
    """The disk of a running node, as seen from outside through its process."""

    node: Process
    folder: Path

    @property
    def inside(self) -> Path:
        """The node's folder as that node sees it."""
        return Path(f"/proc/{self.node.pid}/root{self.folder}")

    def free_mb(self) -> float:
        found = os.statvfs(self.inside)
        return found.f_bavail * found.f_frsize / 2**20

    def left_over(self) -> list[str]:
        """Control and scratch folders of runs: these are out of sight for ``invariants.left_over``."""
        return [str(path) for name in ("scratch", "launcher/runs") for path in (self.inside / name).glob("*")]


def node_on_small_disk(cluster: Cluster, name: str, size_mb: int, **more: str) -> Disk:
    """Start a node whose folder is on a disk of ``size_mb`` MiB."""
    folder = cluster.folder / name
    folder.mkdir()
    mount = f"mount -t tmpfs -o size={size_mb}m,mode=0711 gantry-test '{folder}' && exec \"$@\""
    if os.geteuid() == 0:
        under = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    else:
        back = ["unshare", "--user", f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}", "--"]
        under = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", *back]
    return Disk(cluster.node(name, under=under, **more), folder)  # type: ignore[arg-type]


def inside_of(disk: Disk) -> list[str]:
    """The command that executes another one where this disk can be seen, for the node's next worker."""
    command = ["nsenter", f"--target={disk.node.pid}", "--mount"]
    if os.geteuid() != 0:
        command += ["--user", "--preserve-credentials"]
    return [*command, "--"]
