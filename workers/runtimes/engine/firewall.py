"""The firewall rules of the guarded network, in the engine's own network namespace (docs/decisions/0027).

Nothing from its bridge reaches an address of the machine itself, nor the networks of
GANTRY_CONTAINER_DENY_NETWORKS and the guard's metadata services. Whose bridge that is, and when to look,
``networks`` decides. Must not import models or the database.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Final

import structlog
from django.conf import settings

from workers.addresses.guard import METADATA
from workers.runtimes.engine.client import Engine, EngineAway

log = structlog.get_logger(__name__)

#: The bridge's name in the kernel, drawn by lot when it was made: where it is, there the engine is.
_BRIDGE: Final = re.compile(r"gantry[0-9a-f]{8}")
#: Names of our chains: from the network to the machine itself, and from it through the machine. Whose and of
#: which bridge follows: ``GANTRY-IN-<installation>-<bridge>``, eight digits each (28 letters at most).
_TO_HOST, _THROUGH = "GANTRY-IN", "GANTRY-OUT"
#: What all installations shared before: each overwrote the others'.
_SHARED: Final = ("GANTRY-HOST", "GANTRY-OUT")
_CHAIN: Final = r"GANTRY-(?:HOST|OUT|(?:IN|OUT)-[0-9a-f]{8}-[0-9a-f]{8})"
#: A jump of ours or of another installation: what it leads to accepts nothing, so it may stand before ours.
_JUMP: Final = re.compile(rf"-A (?P<hook>\S+) -i (?P<bridge>\S+) -j (?P<chain>{_CHAIN})")
_REJECT: Final = "-j REJECT --reject-with icmp-port-unreachable"
_ANSWERS: Final = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
#: Where clouds answer questions about names, beside their metadata: port 53 only.
_RESOLVERS: Final = ("169.254.0.0/16", "168.63.129.16/32")
_HOOKS: Final = ("INPUT", "DOCKER-USER")
#: The engine's own rule, without which DOCKER-USER is never asked.
_THROUGH_HOOK: Final = "-A FORWARD -j DOCKER-USER"
#: Rules that somebody changed so often within so many heartbeats do not hold.
_OFTEN, _WITHIN_BEATS = 3, 12


class Unguarded(Exception):
    """The network cannot be guarded here; the text says why and what to do."""


class Firewall:
    """The rules of one engine's bridge. Not safe for threads: two that set them see each other's halves.

    ``installation``: any text that no other installation on this machine has; the chains carry its hash.
    """

    def __init__(self, installation: str) -> None:
        self._ours = digits(installation)
        #: As they stood when they were set.
        self._rules: list[str] = []
        #: When somebody else had changed them, by the monotonic clock.
        self._changed: list[float] = []

    def guard(self, engine: Engine, bridge: str) -> None:
        """Set the rules, unless they stand as they were set. Raises Unguarded, also when they do not hold."""
        enter, devices = _namespace(engine, bridge)
        chains = self._chains(bridge)
        lines = _listed(enter)
        if not self._rules or _standing(lines, bridge, chains) != self._rules:
            self._set(enter, lines, bridge, devices)
        self._holds()

    def _set(self, enter: list[str], lines: list[str], bridge: str, devices: str) -> None:
        chains, again = self._chains(bridge), bool(self._rules)
        jumps = [f"-I {hook} 1 -i {bridge} -j {chain}" for hook, chain in zip(_HOOKS, chains, strict=True)]
        wanted = [
            "*filter",
            *(f":{chain} - [0:0]" for chain in chains),
            *_rules(bridge, chains),
            *self._leftovers(lines, bridge, devices),
            *([] if _THROUGH_HOOK in lines else ["-I FORWARD 1 -j DOCKER-USER"]),
            *jumps,
            *("COMMIT", ""),
        ]
        # As a whole or not at all.
        _run([*enter, "iptables-restore", "-w", "5", "--noflush"], "\n".join(wanted))
        self._rules = _standing(_listed(enter), bridge, chains)
        expected = len(_rules(bridge, chains)) + 3
        if len(self._rules) != expected:
            found, self._rules = len(self._rules), []
            raise Unguarded(f"of its {expected} firewall rules only {found} stand")
        if again:
            log.warning("network.rules_set_again", why="somebody had changed or flushed them")
            self._changed.append(time.monotonic())

    def _holds(self) -> None:
        """Raises Unguarded when somebody changes the rules again and again: in between they do not stand."""
        within = _WITHIN_BEATS * settings.GANTRY_HEARTBEAT_S
        self._changed = [at for at in self._changed if at > time.monotonic() - within]
        if len(self._changed) >= _OFTEN:
            raise Unguarded(
                f"something changed or flushed its firewall rules {len(self._changed)} times within "
                f"{within:.0f} s (a firewall service?): let it leave alone the chains {_TO_HOST}-* and "
                f"{_THROUGH}-*, and the jumps to them"
            )

    def _chains(self, bridge: str) -> tuple[str, str]:
        """The names of our two chains, as the hooks stand."""
        whose = f"{self._ours}-{digits(bridge)}"
        return f"{_TO_HOST}-{whose}", f"{_THROUGH}-{whose}"

    def _leftovers(self, lines: list[str], bridge: str, devices: str) -> list[str]:
        """Commands that take away our jumps, which are set anew, chains of ours whose network was removed,
        and what an earlier version named without its installation, unless another one uses it.
        """
        now, commands, used = self._chains(bridge), [], set(self._chains(bridge))
        mine = re.compile(rf"GANTRY-(?:IN|OUT)-{self._ours}-[0-9a-f]{{8}}|{'|'.join(_SHARED)}")
        for jump in filter(None, map(_JUMP.fullmatch, lines)):
            chain, gone = jump["chain"], not _has(devices, jump["bridge"])
            if mine.fullmatch(chain) and (gone or chain in now or jump["bridge"] == bridge):
                commands.append(f"-D{jump[0][2:]}")
            else:
                used.add(chain)
        chains = [line.removeprefix("-N ") for line in lines if line.startswith("-N ")]
        unused = [name for name in chains if name not in used and mine.fullmatch(name)]
        return [*commands, *(f"{flag} {name}" for name in unused for flag in ("-F", "-X"))]


def _standing(lines: list[str], bridge: str, chains: tuple[str, str]) -> list[str]:
    """Our rules and the jumps to them, as the kernel tells them."""
    jumps = [(hook, f"-A {hook} -i {bridge} -j {chain}") for hook, chain in zip(_HOOKS, chains, strict=True)]
    return [
        *(line for line in lines if line.startswith(tuple(f"-A {chain} " for chain in chains))),
        # Behind a rule of anybody else is not good enough: that may accept.
        *(jump for hook, jump in jumps if jump in _first(lines, hook)),
        # The engine may have set it again beside ours: twice is as good as once.
        *([_THROUGH_HOOK] if _THROUGH_HOOK in lines else []),
    ]


def _rules(bridge: str, chains: tuple[str, str]) -> list[str]:
    """The rules of our two chains."""
    to_host, through = chains
    # A cloud's resolver may live beside its metadata: names must be found, nothing else.
    names = [
        f"-d {where} -p {kind} -m {kind} --dport 53 -j RETURN"
        for where in _RESOLVERS
        for kind in ("udp", "tcp")
    ]
    metadata = sorted(f"{address}/32" for address in METADATA if address.version == 4)
    networks = dict.fromkeys([*settings.GANTRY_CONTAINER_DENY_NETWORKS, *metadata])
    denied = [f"-d {network} {_REJECT}" for network in networks]
    return [
        *(f"-A {to_host} {rule}" for rule in (_ANSWERS, _REJECT)),
        *(f"-A {through} {rule}" for rule in (_ANSWERS, f"-o {bridge} {_REJECT}", *names, *denied)),
    ]


def digits(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _namespace(engine: Engine, bridge: str) -> tuple[list[str], str]:
    """How a command gets into the engine's network namespace ([] = it is ours), and the devices there.

    Raises Unguarded.
    """
    if os.geteuid() != 0:
        raise Unguarded("the worker is not root: run it as root")
    if not engine.address.path:
        raise Unguarded(
            f"the engine is at {engine.address.shown}: run a worker on that machine, at the engine's socket"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(5.0)
        try:
            channel.connect(engine.address.path)
        except OSError as error:
            raise EngineAway(
                f"the Docker Engine at {engine.address.shown} does not answer: {error}", sent=False
            ) from error
        packed = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid = struct.unpack("3i", packed)[0]
    there = Path(f"/proc/{pid}")
    elsewhere = "the engine's process is not visible from here (a worker in a container?): run it on the host"
    if pid <= 0:
        # In a container that shares the machine's network, but not its processes.
        devices = Path("/proc/self/net/dev").read_text()
        if _BRIDGE.fullmatch(bridge) and _has(devices, bridge):
            return [], devices
        raise Unguarded(elsewhere)
    try:
        devices = (there / "net/dev").read_text()
        same = (there / "ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    except OSError:
        raise Unguarded(elsewhere) from None
    if not _has(devices, bridge):
        raise Unguarded(f"the bridge {bridge} is not where the engine's socket is: is the engine elsewhere?")
    return [] if same else ["nsenter", f"--net={there}/ns/net", "--"], devices


def _has(devices: str, bridge: str) -> bool:
    return re.search(rf"^\s*{re.escape(bridge)}:", devices, re.MULTILINE) is not None


def _listed(enter: list[str]) -> list[str]:
    return _run([*enter, "iptables", "-w", "5", "-S"]).splitlines()


def _first(lines: list[str], hook: str) -> list[str]:
    """The jumps of ours and of other installations with which this chain begins."""
    rules = (line for line in lines if line.startswith(f"-A {hook} "))
    return list(itertools.takewhile(_JUMP.fullmatch, rules))


def _run(command: list[str], given: str = "") -> str:
    """A command's output. Raises Unguarded with its words."""
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=15, check=False, env=_environment()
        )
    except FileNotFoundError as error:
        raise Unguarded(f"there is no {error.filename} here: install iptables and util-linux") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[:300]
        raise Unguarded(f"{' '.join(command[-6:])} failed: {said}")
    return done.stdout


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
