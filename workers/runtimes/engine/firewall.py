"""The firewall rules of the guarded network, in the engine's own network namespace (docs/decisions/0027).

Nothing from its bridge reaches an address of the machine itself, nor the networks of
GANTRY_CONTAINER_DENY_NETWORKS and the guard's metadata services. Whose bridge that is, and when to look,
``networks`` decides. Must not import models or the database.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
from pathlib import Path
from typing import Final

import structlog
from django.conf import settings

from workers.addresses.guard import METADATA
from workers.runtimes.engine.client import Engine, EngineAway

log = structlog.get_logger(__name__)

#: The bridge's name in the kernel, drawn by lot when it was made: where it is, there the engine is.
_BRIDGE: Final = re.compile(r"gantry[0-9a-f]{8}")
#: From the network to the machine itself, and from it through the machine.
_TO_HOST, _THROUGH = "GANTRY-HOST", "GANTRY-OUT"
_REJECT: Final = "-j REJECT --reject-with icmp-port-unreachable"
_ANSWERS: Final = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
#: Where clouds answer questions about names, beside their metadata: port 53 only.
_RESOLVERS: Final = ("169.254.0.0/16", "168.63.129.16/32")
_HOOKS: Final = (("INPUT", _TO_HOST), ("DOCKER-USER", _THROUGH))
#: The engine's own rule, without which DOCKER-USER is never asked.
_THROUGH_HOOK: Final = "-A FORWARD -j DOCKER-USER"


class Unguarded(Exception):
    """The network cannot be guarded here; the text says why and what to do."""


class Firewall:
    """The rules of one engine's bridge. Not safe for threads: two that set them see each other's halves."""

    def __init__(self) -> None:
        #: As they stood when they were set.
        self._rules: list[str] = []

    def guard(self, engine: Engine, bridge: str) -> None:
        """Set the rules, unless they stand as they were set. Raises Unguarded."""
        enter = _namespace(engine, bridge)
        if self._rules and self._standing(enter, bridge) == self._rules:
            return
        again = bool(self._rules)
        chains = _chains(bridge)
        _run([*enter, "iptables-restore", "-w", "5", "--noflush"], chains)
        if _THROUGH_HOOK not in _listed(enter):
            _run([*enter, "iptables", "-w", "5", "-I", "FORWARD", "1", "-j", "DOCKER-USER"])
        for hook, chain in _HOOKS:
            jump = ["-i", bridge, "-j", chain]
            for old in _jumping(_listed(enter), hook, chain) - {bridge}:  # of a network that was removed
                _run([*enter, "iptables", "-w", "5", "-D", hook, "-i", old, "-j", chain])
            if f"-A {hook} {' '.join(jump)}" != _first(_listed(enter), hook):
                _run([*enter, "iptables", "-w", "5", "-I", hook, "1", *jump])
        self._rules = self._standing(enter, bridge)
        expected = chains.count("\n-A ") + 3
        if len(self._rules) != expected:
            found, self._rules = len(self._rules), []
            raise Unguarded(f"of its {expected} firewall rules only {found} stand")
        if again:
            log.warning("network.rules_set_again", why="somebody had changed or flushed them")

    @staticmethod
    def _standing(enter: list[str], bridge: str) -> list[str]:
        """Our rules and the jumps to them, as the kernel tells them."""
        lines = _listed(enter)
        jumps = [(f"-A {hook} -i {bridge} -j {chain}", hook) for hook, chain in _HOOKS]
        return [
            *(line for line in lines if line.startswith((f"-A {_TO_HOST} ", f"-A {_THROUGH} "))),
            # Not first is not good enough: a rule before it may accept.
            *(jump for jump, hook in jumps if _first(lines, hook) == jump),
            # The engine may have set it again beside ours: twice is as good as once.
            *([_THROUGH_HOOK] if _THROUGH_HOOK in lines else []),
        ]


def _chains(bridge: str) -> str:
    """Our two chains for iptables-restore: replaced as a whole or not at all."""
    # A cloud's resolver may live beside its metadata: names must be found, nothing else.
    names = [
        f"-d {where} -p {kind} -m {kind} --dport 53 -j RETURN"
        for where in _RESOLVERS
        for kind in ("udp", "tcp")
    ]
    metadata = sorted(f"{address}/32" for address in METADATA if address.version == 4)
    networks = dict.fromkeys([*settings.GANTRY_CONTAINER_DENY_NETWORKS, *metadata])
    denied = [f"-d {network} {_REJECT}" for network in networks]
    rules = [
        *(f"-A {_TO_HOST} {rule}" for rule in (_ANSWERS, _REJECT)),
        *(f"-A {_THROUGH} {rule}" for rule in (_ANSWERS, f"-o {bridge} {_REJECT}", *names, *denied)),
    ]
    return "\n".join(["*filter", f":{_TO_HOST} - [0:0]", f":{_THROUGH} - [0:0]", *rules, "COMMIT", ""])


def _namespace(engine: Engine, bridge: str) -> list[str]:
    """How a command gets into the engine's network namespace ([] = it is ours). Raises Unguarded."""
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
        if _BRIDGE.fullmatch(bridge) and _has(Path("/proc/self/net/dev").read_text(), bridge):
            return []
        raise Unguarded(elsewhere)
    try:
        devices = (there / "net/dev").read_text()
        same = (there / "ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    except OSError:
        raise Unguarded(elsewhere) from None
    if not _has(devices, bridge):
        raise Unguarded(f"the bridge {bridge} is not where the engine's socket is: is the engine elsewhere?")
    return [] if same else ["nsenter", f"--net={there}/ns/net", "--"]


def _has(devices: str, bridge: str) -> bool:
    return re.search(rf"^\s*{re.escape(bridge)}:", devices, re.MULTILINE) is not None


def _listed(enter: list[str]) -> list[str]:
    return _run([*enter, "iptables", "-w", "5", "-S"]).splitlines()


def _jumping(lines: list[str], hook: str, chain: str) -> set[str]:
    """The bridges of ours whose packets jump from the one to the other."""
    start, end = f"-A {hook} -i ", f" -j {chain}"
    found = {line[len(start) : -len(end)] for line in lines if line.startswith(start) and line.endswith(end)}
    return {name for name in found if _BRIDGE.fullmatch(name)}


def _first(lines: list[str], hook: str) -> str:
    return next((line for line in lines if line.startswith(f"-A {hook} ")), "")


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
