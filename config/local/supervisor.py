"""`make up` and `make worker`: starts the servers, prepares the database, keeps the children running.

Commands that run are held by a detached launcher of the node, not by these children: a stop or a restart
does not touch them. Hence no signal ever goes to a process group other than that of the API or Flower.
Must not import Django or any app.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from config.local.children import Child, ending
from config.local.data import REPOSITORY, DataFolder, check_port_is_free, port_from
from config.local.embedded import EmbeddedServer
from config.local.errors import LocalError
from config.local.processes import tail
from config.local.programs import api, fetch, flower, worker
from config.local.terminal import paint, say

LOOK_S = 0.1
SERVERS_LOOK_S = 2.0
LOGS_LOOK_S = 60.0
READY_S = 60.0
#: So many ends before the service was ever ready, and it will not get better by itself.
HOPELESS = 4


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
        print(f"{paint('Gantry', 'strong')}, data in {self.data.path}", flush=True)
        with self._signals(), self._everything_ends():
            self._start_servers()
            environment = self.data.environment(self.servers)
            self._step("database", ["migrate", "--noinput"], environment, quiet=True)
            self._step("bootstrap", ["bootstrap"], environment)
            node = environment.setdefault("GANTRY_NODE_NAME", socket.gethostname())
            self._add(api(self.data, environment, port))
            self._add(worker(self.data, environment, "worker"))
            self._add(flower(self.data, environment, flower_port))
            ready = self._wait_until_ready(port)
            self._welcome(port, flower_port, node, ready)
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
        self.data.hold(
            f"node-{node}.lock",
            f"node {node} runs already on this machine (process {{pid}}): set "
            "GANTRY_NODE_NAME to another name",
        )
        servers = self.data.embedded()
        for server in servers:
            if not server.running:
                raise LocalError(
                    f"{server.title} of {self.data.path} does not run: start `make up` first, or set "
                    "DATABASE_URL and REDIS_URL"
                )
        environment = {**self.data.environment(servers), "GANTRY_NODE_NAME": node}
        print(f"{paint('Gantry', 'strong')} worker, node {node}, data in {self.data.path}", flush=True)
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
            server.start()
            self.servers.append(server)
            how = "ran already, used as it is" if reused else f"started in {time.monotonic() - began:.1f} s"
            say(server.title.split()[-1].lower(), f"embedded, {how}", "good")

    def _step(
        self, name: str, arguments: list[str], environment: dict[str, str], *, quiet: bool = False
    ) -> None:
        """One management command. Its standard output is shown unless `quiet`; all of it when it fails."""
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        output = errors = None
        with process:
            while output is None or errors is None:
                try:
                    output, errors = process.communicate(timeout=LOOK_S)
                except subprocess.TimeoutExpired:
                    if self.asked:
                        process.terminate()
        self._check_asked()
        if process.returncode != 0:
            said = (output + errors).strip() or "nothing was said"
            raise LocalError(f"manage.py {' '.join(arguments)} {ending(process.returncode)}:\n{said}")
        (self.data.log / f"{name}.log").write_text(errors)
        if quiet:
            applied = sum(line.rstrip().endswith("OK") for line in output.splitlines())
            done = f"{applied} migrations applied" if applied else "up to date"
            say(name, f"{done}, {time.monotonic() - began:.1f} s", "good")
        elif output.strip():
            print("\n".join(f"  {line}" if line else "" for line in output.rstrip().splitlines()), flush=True)

    def _add(self, child: Child) -> None:
        self._check_asked()
        child.start()
        self.children.append(child)

    def _wait_until_ready(self, port: int) -> bool:
        """Polls /readyz. False: it serves but is not ready, and has said why."""
        deadline = time.monotonic() + READY_S
        answer = "nothing yet"
        while time.monotonic() < deadline:
            self._check_asked()
            status, answer = fetch(f"http://127.0.0.1:{port}/readyz")
            if status == 200:
                return True
            self._look_after_children()
            for child in self.children:
                if child.failures >= HOPELESS:
                    raise LocalError(
                        f"{child.name} does not stay up; {child.log} ends with:\n{tail(child.log, 30)}"
                    )
            time.sleep(LOOK_S)
        say("not ready", f"after {READY_S:.0f} s /readyz answers: {answer}", "warn")
        return False

    def _welcome(self, port: int, flower_port: int, node: str, ready: bool) -> None:
        url = f"http://127.0.0.1:{port}"
        token = (
            "the one in GANTRY_BOOTSTRAP_TOKEN"
            if os.environ.get("GANTRY_BOOTSTRAP_TOKEN")
            else ("printed once, at the first start")
        )
        state, colour = ("Ready", "good") if ready else ("Started, not ready", "warn")
        print(f"\n{paint(state, colour)} in {time.monotonic() - self._began:.1f} s\n")
        say("API", url, "strong")
        say("docs", f"{url}/api/docs/")
        say("token", f"{token} (Authorization: Bearer ...)")
        say("admin", f"{url}/admin/")
        say(
            "Flower",
            f"http://127.0.0.1:{flower_port}  user gantry, password in {self.data.secrets}/flower-password",
        )
        say("node", node)
        say("logs", str(self.data.log))
        say("stop", "Ctrl-C. Running commands go on; the next start takes them up again.\n")

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
                for child in self.children:
                    child.rotate_log()
            time.sleep(LOOK_S)

    def _look_after_children(self) -> None:
        for child in self.children:
            if (news := child.look()) is not None:
                say(child.name, news, "warn")

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
            print("\nStopped before it was up.", flush=True)
        finally:
            self._stop()

    def _stop(self) -> None:
        began = time.monotonic()
        if self.children or self.servers:
            print("\nStopping (once more hurries)", flush=True)
        for child in self.children:
            self._stop_child(child)
        for server in reversed(self.servers):
            server.stop("immediate" if self.asked > 1 else "fast")
            say(server.title.split()[-1].lower(), "stopped")
        self.data.release()
        if self.children or self.servers:
            print(f"Stopped in {time.monotonic() - began:.1f} s", flush=True)

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
