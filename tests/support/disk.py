"""A small disk of its own for one node or server: a tmpfs that only this one and what it starts can see.

As root in a mount namespace, as an ordinary user in a user namespace besides, in which the account stays what
it was. The disk goes with the last process that sees it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster import Cluster, Process


def apart(folder: Path, size_mb: int, owner: tuple[int, int] | None = None) -> list[str]:
    """What comes before a command that is to see ``folder`` as a disk of ``size_mb`` MiB; nobody else does.

    ``owner``: uid and gid, good where we are root.
    """
    root = os.geteuid() == 0
    owned = f",uid={owner[0]},gid={owner[1]}" if owner and root else ""
    mount = f"mount -t tmpfs -o size={size_mb}m{owned} gantry-test '{folder}'"
    # Mounting needs root of a user namespace; the command is to run as the account that it is.
    ids = [f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}"]
    back = [] if root else ["unshare", *ids, "--"]
    inner = ["sh", "-c", f'{mount} && exec "$@"', "sh", *back]
    return ["unshare", "--mount", *([] if root else ["--map-root-user"]), *inner]


_MAY_FILL = {"GANTRY_COMMAND_DISK_MB": "1024"}


@dataclass
class Disk:
    """The disk of a node; it lasts as long as ``keeper``, a process that only looks at it."""

    cluster: Cluster
    name: str
    keeper: int
    node: Process
    _back: list[str]

    @property
    def inside(self) -> Path:
        """The node's folder as that node sees it."""
        return Path(f"/proc/{self.keeper}/root{self.cluster.folder / self.name}")

    def free_mb(self) -> float:
        found = os.statvfs(self.inside)
        return found.f_bavail * found.f_frsize / 2**20

    def left_over(self) -> list[str]:
        """Control and scratch folders of runs: these are out of sight for ``invariants.left_over``."""
        return [str(path) for name in ("scratch", "launcher/runs") for path in (self.inside / name).glob("*")]

    def next_worker(self, **more: str) -> None:
        """Start another worker on this disk, after the end of the one before."""
        under = ["nsenter", f"--target={self.keeper}", "--mount"]
        under += ["--user", "--preserve-credentials"] if self._back else []
        self.node = self.cluster.node(
            self.name, under=[*under, "--", *self._back], settings={**_MAY_FILL, **more}
        )


def node_on_small_disk(cluster: Cluster, name: str, size_mb: int, **more: str) -> Disk:
    """Start a node whose folder is on a disk of ``size_mb`` MiB, which one command may fill."""
    more = {**_MAY_FILL, **more}
    folder = cluster.folder / name
    folder.mkdir()
    note = cluster.folder / f"{name}.keeper"
    script = (
        f"mount -t tmpfs -o size={size_mb}m,mode=0711 gantry-test '{folder}' || exit 1; "
        f"(cd '{folder}' && exec sleep infinity) & echo $! > '{note}'; exec \"$@\""
    )
    under, back = ["unshare", "--mount"], []
    if os.geteuid() != 0:
        under.append("--map-root-user")
        # Mounting needs root of a user namespace; the node is to run as the ordinary account that it is.
        back = ["unshare", "--user", f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}", "--"]
    node = cluster.node(name, under=[*under, "sh", "-c", script, "sh", *back], settings=more)
    return Disk(cluster, name, int(note.read_text()), node, back)
