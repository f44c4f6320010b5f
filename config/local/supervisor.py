"""`make up` and `make worker`: starts the servers, prepares the database, keeps the children running.

Commands that run are held by a detached launcher of the node, not by these children: a stop or a restart
does not touch them. Hence no signal ever goes to a process group other than that of the API or Flower.
Must not import Django or any app.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from config.local.children import STARTED_AGAIN, Child, rotate_when_long
from config.local.data import DataFolder, check_port_is_free, hold_port, port_from
from config.local.embedded import EmbeddedServer
from config.local.errors import LocalError
from config.local.processes import tail
from config.local.programs import api, callbacks, fetch, flower, manage, worker
from config.local.terminal import paint, say, tell

LOOK_S = 0.1
SERVERS_LOOK_S = 2.0
LOGS_LOOK_S = 60.0
READY_S = 150.0
#: How long the first heartbeat of the node may take before that is said instead of awaited.
NODE_S = 15.0
#: So many ends before the service was ever ready, and it will not get better by itself.
HOPELESS = 4
EXAMPLE = '{"taskName":"hello","commands":"echo hello"}'


class Interrupted(Exception):
    """Ctrl-C or TERM came before everything was up."""


class Supervisor:
    """Holds the data folder, its servers and its children until a signal ends it."""

    def __init__(self, data: DataFolder) -> None:
        self.data = data
        self.servers: list[EmbeddedServer] = []
        self.children: list[Child] = []
        #: How often somebody asked to stop; from the second time on everything is hurried.
        self.asked = 0
        self._began = time.monotonic()
        #: Where a newcomer finds a token.
        self._credential = ""

    # --- commands ---

    def up(self) -> int:
        """The whole service on this machine. Returns the exit status."""
        port, flower_port = port_from("GANTRY_PORT", 8000), port_from("GANTRY_FLOWER_PORT", 5555)
        if port == flower_port:
            raise LocalError(f"GANTRY_PORT and GANTRY_FLOWER_PORT are both {port}: choose two")
        self.data.hold(
            "lock",
            "data folder {data} is in use by another `make up` (process {pid}): stop that one, "
            "or set GANTRY_DATA_DIR to another folder",
        )
        check_port_is_free("GANTRY_PORT", port)
        check_port_is_free("GANTRY_FLOWER_PORT", flower_port)
        node = os.environ.get("GANTRY_NODE_NAME") or socket.gethostname()
        self.data.hold_node(node)
        # Open while this lives: no command takes the port, and with it tokens, while the API is away.
        held = hold_port("GANTRY_PORT", port)
        tell(f"{paint('Gantry', 'strong')}, data in {self.data.path}")
        with held, self._signals(), self._everything_ends():
            self._start_servers()
            environment = {
                "GANTRY_PUBLIC_URL": f"http://127.0.0.1:{port}",  # unless the caller knows better
                **self.data.environment(self.servers),
                "GANTRY_NODE_NAME": node,
            }
            self._prepare_database(environment)
            self._add(api(self.data, environment, port))
            self._add(worker(self.data, environment, "worker"))
            self._add(callbacks(self.data, environment))
            self._add(flower(self.data, environment, flower_port))
            self._welcome(port, flower_port, node, self._wait_until_ready(port))
            self._watch()
        return 0

    def worker(self) -> int:
        """One more node, on the servers of a running `make up` or on those that the environment names."""
        elsewhere = bool(os.environ.get("DATABASE_URL") and os.environ.get("REDIS_URL"))
        node = os.environ.get("GANTRY_NODE_NAME") or socket.gethostname() + ("" if elsewhere else "-2")
        if not os.environ.get("GANTRY_SECRET_KEYS") and not self.data.secret_keys.exists():
            raise LocalError(
                f"no GANTRY_SECRET_KEYS, and no key in {self.data.secret_keys}: a node needs the same keys "
                "as the API. Set GANTRY_SECRET_KEYS, or GANTRY_DATA_DIR to the data folder of `make up`"
            )
        self.data.hold_node(node)
        environment = {**self.data.environment(self.data.running()), "GANTRY_NODE_NAME": node}
        tell(f"{paint('Gantry', 'strong')} worker, node {node}, data in {self.data.path}")
        with self._signals(), self._everything_ends():
            child = worker(self.data, environment, f"worker-{node}")
            self._add(child)
            say("log", str(child.log))
            say("stop", "Ctrl-C. Running commands go on; the next start of this node takes them up again.")
            self._watch()
        return 0

    # --- start ---

    def _start_servers(self) -> None:
        for name in ("DATABASE_URL", "REDIS_URL"):
            if os.environ.get(name):
                say("postgres" if name == "DATABASE_URL" else "redis", f"the one that {name} names")
        for server in self.data.embedded():
            self._check_asked()
            began = time.monotonic()
            reused = server.running
            self.servers.append(server)
            server.start()
            how = "ran already, used as it is" if reused else f"started in {time.monotonic() - began:.1f} s"
            say(server.title.split()[-1].lower(), f"embedded, {how}", "good")

    def _prepare_database(self, environment: dict[str, str]) -> None:
        began = time.monotonic()
        output = self._manage("migrate", "--noinput", environment=environment)
        applied = sum(line.rstrip().endswith("OK") for line in output.splitlines())
        done = f"{applied} migrations applied" if applied else "up to date"
        say("database", f"{done}, {time.monotonic() - began:.1f} s", "good")
        # What it makes up it prints, this once.
        output = self._manage("bootstrap", environment=environment)
        for line in output.rstrip().splitlines():
            tell(f"  {line}")
        if os.environ.get("GANTRY_BOOTSTRAP_TOKEN"):
            self._credential = "the one in GANTRY_BOOTSTRAP_TOKEN"
        elif "Token of" in output:
            self._credential = "printed above, only this once"
        else:
            self._credential = "printed at the first start; a new one: make manage ARGS='create_token admin'"

    def _manage(self, *arguments: str, environment: dict[str, str]) -> str:
        output = manage(arguments, environment, self.data.log / f"{arguments[0]}.log", lambda: self.asked > 0)
        self._check_asked()
        return output

    def _add(self, child: Child) -> None:
        self._check_asked()
        child.start()
        self.children.append(child)

    def _wait_until_ready(self, port: int) -> dict[str, Any]:
        """What /readyz says once it is ready and a node has reported, or when waiting is no use any more."""
        began = time.monotonic()
        served: float | None = None
        said: dict[str, Any] = {}
        while time.monotonic() - began < READY_S:
            self._check_asked()
            status, answer = fetch(f"http://127.0.0.1:{port}/readyz")
            if status in (200, 503):
                said = json.loads(answer)
            if status == 200:
                served = served or time.monotonic()
                if said["nodes"].get("ready") or time.monotonic() - served > NODE_S:
                    return said
            self._look_after_children()
            for child in self.children:
                if child.name == "api" and child.failures >= HOPELESS:
                    raise LocalError(
                        f"the API does not stay up; {child.log} ends with:\n{tail(child.log, 30)}"
                    )
            time.sleep(LOOK_S)
        return said

    def _welcome(self, port: int, flower_port: int, node: str, said: dict[str, Any]) -> None:
        url = f"http://127.0.0.1:{port}"
        ready = said.get("status") == "ready"
        state, colour = ("Ready", "good") if ready else ("Started, not ready", "warn")
        tell(f"\n{paint(state, colour)} in {time.monotonic() - self._began:.1f} s\n")
        say("API", url, "strong")
        say("docs", f"{url}/api/docs/")
        say("admin", f"{url}/admin/")
        say("Flower", f"http://127.0.0.1:{flower_port}")
        say("", f"user gantry, password in {self.data.secrets}/flower-password")
        say("token", self._credential)
        say("try", f"""curl --json '{EXAMPLE}' -H "Authorization: Bearer $TOKEN" {url}/v1/tasks""")
        say("node", node)
        say("logs", str(self.data.log))
        if os.geteuid() != 0:
            say("beware", "not root: commands run as this account and can read what it can read.", "warn")
            say("", "GANTRY_COMMANDS_UNISOLATED=0 forbids them.")
        if not ready:
            say("not ready", str(said or "the API does not answer yet"), "warn")
        for warning in said.get("warnings", []):
            say("beware", warning, "warn")
        say("stop", "Ctrl-C. Running commands go on; the next start takes them up again.")
        tell("")

    # --- watch ---

    def _watch(self) -> None:
        next_servers = next_logs = 0.0
        while not self.asked:
            self._look_after_children()
            now = time.monotonic()
            if now >= next_servers:
                next_servers = now + SERVERS_LOOK_S
                self._look_after_servers()
            if now >= next_logs:
                next_logs = now + LOGS_LOOK_S
                for log in (
                    *(child.log for child in self.children),
                    *(server.log for server in self.servers),
                ):
                    rotate_when_long(log)
            time.sleep(LOOK_S)

    def _look_after_children(self) -> None:
        for child in self.children:
            if (news := child.look()) is not None:
                say(child.name, news, "good" if news == STARTED_AGAIN else "warn")

    def _look_after_servers(self) -> None:
        for server in self.servers:
            if server.running:
                continue
            try:
                server.start()
            except LocalError as error:
                say(server.title, f"is gone and does not start: {error}", "bad")
            else:
                say(server.title, "was gone, started again", "warn")

    # --- end ---

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def ask(signum: int, frame: FrameType | None) -> None:
            self.asked += 1

        kept = {each: signal.signal(each, ask) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for each, handler in kept.items():
                signal.signal(each, handler)

    def _check_asked(self) -> None:
        if self.asked:
            raise Interrupted

    @contextmanager
    def _everything_ends(self) -> Iterator[None]:
        try:
            yield
        except Interrupted:
            tell("\nStopped before it was up.")
        finally:
            self._stop()

    def _stop(self) -> None:
        began = time.monotonic()
        if self.children or self.servers:
            tell("\nStopping (once more hurries)")
        for child in self.children:
            self._stop_child(child)
        for server in reversed(self.servers):
            server.stop("immediate" if self.asked > 1 else "fast")
            say(server.title.split()[-1].lower(), "stopped")
        self.data.release()
        if self.children or self.servers:
            tell(f"Stopped in {time.monotonic() - began:.1f} s")

    def _stop_child(self, child: Child) -> None:
        began = time.monotonic()
        child.ask_to_end()
        hurried = self._wait_for(child.ended, lambda: 1.0 if self.asked > 1 else child.grace)
        if not hurried:
            say(child.name, f"did not end in {time.monotonic() - began:.0f} s, killed", "warn")
        else:
            say(child.name, "stopped")
        child.end_now()

    @staticmethod
    def _wait_for(done: Callable[[], bool], limit: Callable[[], float]) -> bool:
        began = time.monotonic()
        while not done():
            if time.monotonic() - began > limit():
                return False
            time.sleep(LOOK_S / 2)
        return True
