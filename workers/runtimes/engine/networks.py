"""The network that containers get for BRIDGE: out to the world, not to the node, to others, to metadata.

Made on the engine as the bridge ``gantry`` without traffic between containers, and guarded by the rules of
``firewall`` (docs/decisions/0027). Rules can be flushed by others, so they are looked at again before each
start and every few seconds. A worker in a container of its own leaves that to a neighbour (`manage.py
network`, docs/decisions/0053) and heeds what it says. Where they cannot be set (not root, an engine on
another machine) GANTRY_CONTAINER_NETWORK decides. Must not import models or the database.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Final

import structlog
from django.conf import settings

from workers.runtimes.base import PrepareFailed
from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused
from workers.runtimes.engine.firewall import Firewall, Unguarded
from workers.runtimes.machine_lock import alone
from workers.vocabulary import pulse
from workers.vocabulary.states import Reason

log = structlog.get_logger(__name__)

#: The network's name on the engine.
NETWORK: Final = "gantry"
#: Held by the process of this machine that makes the network. Without it a second network of the name is
#: noticed and removed.
_LOCK: Final = Path("/run/gantry-network.lock")
_ICC: Final = "com.docker.network.bridge.enable_icc"
_BRIDGE_NAME: Final = "com.docker.network.bridge.name"
#: How long the network is looked after once nobody asks for it any more, in seconds.
_KEPT_S: Final = 30.0
#: Longest silence of the engine when it is asked about its networks, in seconds.
_ASK_S: Final = 10.0
#: Longest silence of the process that guards the network for this worker, in seconds.
_NEIGHBOUR_S: Final = 15.0

#: One at a time in this process: two that make the network at once make two for a moment, and the engine then
#: calls its name ambiguous; two that set the rules see each other's halves.
_LOOKING = threading.Lock()


class Networks:
    """One engine's network for BRIDGE. Safe for many threads.

    ``installation`` names the rules: other installations of this machine have theirs. ``guard_file``: where
    another process says how it guards the network; "": this one guards it.
    """

    def __init__(self, engine: Engine, installation: str, guard_file: str | None = None) -> None:
        self._engine = engine
        self._guard_file = settings.GANTRY_NETWORK_GUARD if guard_file is None else guard_file
        #: The network's id on the engine, once it was seen.
        self.identity = ""
        self._keeper: threading.Thread | None = None
        self._wanted_until = 0.0
        self._firewall = Firewall(installation)
        #: Why it is not guarded, in words; empty when it is or need not be.
        self.trouble = ""

    def bridge(self) -> str:
        """The network for a container that asks for BRIDGE. Raises PrepareFailed while there is none."""
        if settings.GANTRY_CONTAINER_NETWORK != "guarded":
            return {"plain": "bridge", "none": "none"}[settings.GANTRY_CONTAINER_NETWORK]
        if trouble := self.look():
            raise PrepareFailed(Reason.RUNTIME, trouble, ours=True, wait_s=10.0)
        return NETWORK

    def keep(self) -> None:
        """Called with every heartbeat: look after network and rules, in a thread, so that nobody waits."""
        self._wanted_until = time.monotonic() + _KEPT_S
        if settings.GANTRY_CONTAINER_NETWORK == "guarded" and (
            self._keeper is None or not self._keeper.is_alive()
        ):
            self._keeper = threading.Thread(target=self._keep, name="networks", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        while time.monotonic() < self._wanted_until:
            self.look()
            time.sleep(settings.GANTRY_HEARTBEAT_S)

    def look(self) -> str:
        """Make network and rules as they must be; returns the trouble, "" when they are. Never raises."""
        if settings.GANTRY_CONTAINER_NETWORK == "guarded":
            with _LOOKING:
                self._look()
        return self.trouble

    def _look(self) -> None:
        before = self.trouble
        try:
            bridge = self._network()
            if self._guard_file:
                self._heed(Path(self._guard_file))
            else:
                self._firewall.guard(self._engine, bridge)
            self.trouble = ""
        except Unguarded as error:
            self.trouble = (
                f"the network of containers cannot be guarded here: {error}; or set "
                "GANTRY_CONTAINER_NETWORK=plain (containers may reach this node) or none"
            )
        except EngineAway as error:
            self.trouble = f"the network of containers is not ready: {error}"
        except (EngineRefused, OSError, subprocess.SubprocessError) as error:
            self.trouble = f"the network of containers is not ready: {error}"
        if self.trouble and self.trouble != before:
            log.warning("network.unguarded", why=self.trouble)
        if before and not self.trouble:
            log.info("network.guarded")

    def _network(self) -> str:
        """The network as it must be, made if it is missing; returns its bridge's name."""
        found = self._inspect()
        if found is None:
            with alone(_LOCK, _ASK_S):
                if self._inspect() is None:
                    self._make()
            found = self._made()
        options = (found or {}).get("Options") or {}
        bridge = str(options.get(_BRIDGE_NAME, ""))
        if found is None or not re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", bridge) or found.get("EnableIPv6"):
            raise Unguarded(f"the engine's network {NETWORK} is not one of ours: remove or rename it")
        if options.get(_ICC) != "false":
            raise Unguarded(
                f"the engine's network {NETWORK} lets containers talk to each other: remove it, then it is "
                f"made again with {_ICC}=false"
            )
        self.identity = str(found["Id"])
        return bridge

    def _heed(self, file: Path) -> None:
        """What the guarding process says of this network. Raises Unguarded."""
        try:
            identity, *trouble = pulse.read(file, max(_NEIGHBOUR_S, 3 * settings.GANTRY_HEARTBEAT_S))
        except (pulse.Silent, ValueError) as error:
            raise Unguarded(f"the process `network` that guards it is not heard: {error}; start it") from None
        if trouble:
            raise Unguarded(f"the process `network` says: {' '.join(trouble)}")
        if identity != self.identity:
            raise Unguarded("the process `network` guards that of another engine, or looks again in a moment")

    def _inspect(self) -> dict[str, Any] | None:
        """The network; of several of the name the oldest, and the others are removed.

        The engine promises no more than its best to refuse a second one, and with two it starts nothing.
        """
        # By exact name: the engine would also take it for the beginning of an id.
        named: list[dict[str, Any]] = self._engine.call(
            lambda docker: docker.networks(names=[f"^{NETWORK}$"]), timeout_s=_ASK_S
        )
        ours = [item for item in named if item.get("Name") == NETWORK and item.get("Driver") == "bridge"]
        ours.sort(key=lambda item: (str(item.get("Created")), str(item["Id"])))
        for item in ours[1:]:
            log.warning("network.doubled", removed=item["Id"])
            with contextlib.suppress(EngineRefused):  # another worker was faster, or containers hold it
                self._remove(str(item["Id"]))
        return ours[0] if ours else None

    def _remove(self, identity: str) -> None:
        self._engine.call(lambda docker: docker.remove_network(identity), timeout_s=_ASK_S)

    def _made(self) -> dict[str, Any] | None:
        """The network that was made a moment ago, perhaps by another: that takes the engine a moment, too."""
        for _ in range(20):
            if found := self._inspect():
                return found
            time.sleep(0.1)
        return None

    def _make(self) -> None:
        try:
            self._engine.call(
                lambda docker: docker.create_network(
                    NETWORK,
                    driver="bridge",
                    options={_ICC: "false", _BRIDGE_NAME: f"gantry{secrets.token_hex(4)}"},
                    check_duplicate=True,
                    labels={"gantry": "network"},
                ),
                timeout_s=_ASK_S,
            )
        except EngineRefused as error:
            # Another worker of this engine was faster: by name (409), or by the bridge's name (403).
            if error.status != 409 and "same bridge name" not in error.message:
                raise
