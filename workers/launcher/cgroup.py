"""Control groups: where the launcher may write there, each run has one for its memory and its share of CPU.

Found once, by trying. v1 has a tree for each controller, v2 one for all; each controller is had or not, and
`reason` says why not. Groups are made and removed by the launcher; a shim steps into its run's group to
start the command, and out again: so the command is inside from its first instruction, and the shim, which
has to record the end, never is. Standard library only.

In v1 a thread moves itself through `tasks`, which is quick; in v2 there is `cgroup.procs` only, for which the
kernel may wait some milliseconds. Sources: the kernel's documents admin-guide/cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .orders import Order

MEMORY = "memory"
CPU = "cpu"
AUTO = "auto"
OFF = "off"

_DELEGATED = ("user.delegate", "trusted.delegate")  # how systemd marks what it leaves to a service
_REMOVE_LATER = (errno.EBUSY, errno.ENOTEMPTY)  # the kernel still takes its last process apart
_CPU_SHARES = 1024  # cpu.shares of one CPU (v1)
_CPU_WEIGHT = 100  # cpu.weight of one CPU (v2): what its neighbours have by default


class Place:
    """A folder of a hierarchy below which groups are made. `controllers` are those that are used there."""

    def __init__(self, version: int, folder: str, home: str, controllers: tuple[str, ...]) -> None:
        self.version = version
        self.folder = folder
        self.home = home  # the launcher's own group, where its shims stay
        self.controllers = controllers

    @property
    def entrance(self) -> str:
        return "tasks" if self.version == 1 else "cgroup.procs"

    def limits(self, memory: int, cpu_m: int) -> list[tuple[str, int, bool]]:
        """(file, value, may it be missing?) for a group with so many bytes and thousandths of a CPU."""
        found: list[tuple[str, int, bool]] = []
        if MEMORY in self.controllers and self.version == 1:
            found += [("memory.limit_in_bytes", memory, False), ("memory.memsw.limit_in_bytes", memory, True)]
        elif MEMORY in self.controllers:
            found += [("memory.max", memory, False), ("memory.swap.max", 0, True)]
        if CPU in self.controllers and self.version == 1:
            found.append(("cpu.shares", max(2, cpu_m * _CPU_SHARES // 1000), False))
        elif CPU in self.controllers:
            found.append(("cpu.weight", min(10_000, max(1, cpu_m * _CPU_WEIGHT // 1000)), False))
        return found

    @property
    def kills(self) -> str:
        """The file that counts what was killed for lack of memory, in a line "oom_kill N"."""
        return "memory.oom_control" if self.version == 1 else "memory.events"


class Group:
    """The group of one run, as its shim holds it: descriptors, since its mounts change."""

    __slots__ = ("_events", "_inside", "_outside", "has_memory")

    def __init__(self) -> None:
        self._inside: list[int] = []
        self._outside: list[int] = []
        self._events = -1
        self.has_memory = False

    def take(self, place: Place, folder: str, home: int) -> None:
        """Raises OSError; what was opened before is kept for `close`."""
        self._inside.append(os.open(f"{folder}/{place.entrance}", os.O_WRONLY | os.O_CLOEXEC))
        self._outside.append(home)
        if MEMORY in place.controllers:
            self._events = os.open(f"{folder}/{place.kills}", os.O_RDONLY | os.O_CLOEXEC)
            self.has_memory = True

    def kept(self) -> list[int]:
        """The descriptors that a shim does not close."""
        return [*self._inside, *self._outside, *([self._events] if self.has_memory else [])]

    def enter(self) -> None:
        """This process steps inside: what it starts from now on is born there. Raises OSError."""
        for file in self._inside:
            os.write(file, b"0")

    def leave(self) -> None:
        """Back to the launcher's own. Raises OSError."""
        for file in self._outside:
            os.write(file, b"0")

    def kills(self) -> int:
        """How many processes of the run the kernel has killed because the group was out of memory."""
        if not self.has_memory:
            return 0
        words = os.pread(self._events, 4096, 0).split()
        return int(words[words.index(b"oom_kill") + 1]) if b"oom_kill" in words else 0

    def close(self) -> None:
        """The launcher's copies; the way home is shared by all."""
        for file in (*self._inside, self._events):
            if file >= 0:
                os.close(file)


class Groups:
    """What this launcher may do with control groups, and the groups that it has made."""

    def __init__(self, control_dir: str, places: list[Place], reason: str) -> None:
        """`reason` says what is missing; the places are tried here, and left out if they do not work."""
        self.reason = reason
        self.places: list[Place] = []
        self._homes: list[int] = []
        # Two launchers may share a hierarchy: names bear the folder that each alone holds.
        self._prefix = f"gantry.{hashlib.sha256(os.fsencode(control_dir)).hexdigest()[:12]}."
        self._left: set[str] = set()
        for place in places:
            self._try(place)

    def has(self, controller: str) -> int:
        """The version of the hierarchy that has it for runs; 0 where none has."""
        return next((place.version for place in self.places if controller in place.controllers), 0)

    def make(self, order: Order) -> Group | None:
        """The group of a run, with its limits. None where there is none to be had: then it is watched."""
        if order.memory_bytes is None or not self.places:
            return None
        group = Group()
        try:
            for place, home in zip(self.places, self._homes, strict=True):
                folder = self._make(place, order.name, order.memory_bytes, order.cpu_m)
                group.take(place, folder, home)
        except OSError:
            group.close()
            self.remove(order.name)
            return None
        return group

    def remove(self, name: str) -> None:
        """After the end of a run. A group whose last process is not yet gone is tried again by `tidy`."""
        for place in self.places:
            self._remove(f"{place.folder}/{self._prefix}{name}")

    def tidy(self) -> None:
        """Try again what could not be removed; cheap when there is nothing."""
        for folder in list(self._left):
            self._remove(folder)

    def sweep(self, live: set[str]) -> None:
        """Remove the groups of runs that have ended while no launcher was there."""
        for place in self.places:
            for entry in os.listdir(place.folder):
                if entry.startswith(self._prefix) and entry.removeprefix(self._prefix) not in live:
                    self._remove(f"{place.folder}/{entry}")

    def _remove(self, folder: str) -> None:
        self._left.discard(folder)
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _REMOVE_LATER:
                self._left.add(folder)

    def _make(self, place: Place, name: str, memory: int, cpu_m: int) -> str:
        folder = f"{place.folder}/{self._prefix}{name}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o755)
        for file, value, may_miss in place.limits(memory, cpu_m):
            with contextlib.suppress(FileNotFoundError) if may_miss else contextlib.nullcontext():
                _write(f"{folder}/{file}", b"%d" % value)
        return folder

    def _try(self, place: Place) -> None:
        """A group that is made, entered, left and removed: then the place is good."""
        name = "trial"
        group = Group()
        try:
            home = os.open(f"{place.home}/{place.entrance}", os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            self._refuse(place, error)
            return
        try:
            group.take(place, self._make(place, name, 1 << 30, 1000), home)
            group.enter()
            group.leave()
        except OSError as error:
            self._refuse(place, error)
            os.close(home)
        else:
            self.places.append(place)
            self._homes.append(home)
        finally:
            group.close()
            self._remove(f"{place.folder}/{self._prefix}{name}")

    def _refuse(self, place: Place, error: OSError) -> None:
        said = f"{', '.join(place.controllers)} (v{place.version}) below {place.folder}: {error.strerror}"
        self.reason = f"{self.reason}; {said}" if self.reason else said


def find(wanted: str, control_dir: str, proc: str = "/proc/self") -> Groups:
    """The groups of this machine. `wanted`: AUTO, OFF, or a group ("/gantry") to use in every hierarchy.

    `proc` is the folder that says which groups this process is in, and where hierarchies are mounted.
    """
    if wanted == OFF:
        return Groups(control_dir, [], "switched off")
    try:
        with open(f"{proc}/cgroup") as file:
            own = file.read()
        with open(f"{proc}/mountinfo") as file:
            mounts = file.read()
    except OSError as error:
        return Groups(control_dir, [], f"{proc}: {error.strerror}")
    places, reasons = choose(wanted, own, mounts)
    return Groups(control_dir, places, "; ".join(reasons))


def choose(wanted: str, own: str, mounts: str) -> tuple[list[Place], list[str]]:
    """Where groups may be made, and why not: from the texts of /proc/self/cgroup and mountinfo.

    v1: below this process's own group. v2: below the group that was left to us (systemd: Delegate with
    DelegateSubgroup), since no group with processes of its own can share out memory.
    """
    hierarchies = _hierarchies(own, mounts)
    places: list[Place] = []
    reasons: list[str] = []
    for controller in (MEMORY, CPU):
        if controller in hierarchies:
            top, home = hierarchies[controller]
            places.append(Place(1, home if wanted == AUTO else top + wanted, home, (controller,)))
    missing = tuple(name for name in (MEMORY, CPU) if name not in hierarchies)
    if missing and "" in hierarchies:
        top, home = hierarchies[""]
        folder = _delegated(top, home) if wanted == AUTO else top + wanted
        if folder is None:
            reasons.append(f"cgroup v2: {home} is not below a group that was left to this worker")
        else:
            places.append(Place(2, folder, home, missing))
    elif missing:
        reasons.append(f"no hierarchy with {' and '.join(missing)} is mounted here")
    return [place for place in places if _prepared(place, reasons)], reasons


def _hierarchies(own: str, mounts: str) -> dict[str, tuple[str, str]]:
    """Controller -> (mount point, this process's folder in it); "" is the hierarchy of version 2."""
    groups: dict[str, str] = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    found: dict[str, tuple[str, str]] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        names = options.split(",") if kind == "cgroup" else [""] if kind == "cgroup2" else []
        for name in names:
            group = groups.get(name)
            if group is None or name in found or not (group + "/").startswith(root.rstrip("/") + "/"):
                continue
            found[name] = (point, (point + group[len(root.rstrip("/")) :]).rstrip("/"))
    return found


def _delegated(top: str, home: str) -> str | None:
    """The group above ours, when it was left to us."""
    above = os.path.dirname(home)
    if len(above) <= len(top):
        return None
    for mark in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(above, mark) == b"1":
                return above
    return None


def _prepared(place: Place, reasons: list[str]) -> bool:
    """Make the folder, and in version 2 have it share out what its groups need; False says why in reasons."""
    try:
        os.makedirs(place.folder, 0o755, exist_ok=True)
        if place.version == 2:
            wanted = " ".join(f"+{name}" for name in place.controllers)
            _write(f"{place.folder}/cgroup.subtree_control", wanted.encode())
    except OSError as error:
        said = f"{', '.join(place.controllers)} (v{place.version}): {place.folder}: {error.strerror}"
        reasons.append(said)
        return False
    return True


def _write(path: str, value: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, value)
    finally:
        os.close(file)
