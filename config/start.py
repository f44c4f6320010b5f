"""Starts one process of a deployment: `python -m config.start api|worker|callbacks|...` (NEEDED has all).

One definition of every process' command line, for containers, systemd units and `make up` alike. A secret may
come in a file: NAME_FILE=/path instead of NAME, for the names in SECRETS. The process replaces this one, so a
supervisor's signals reach it. Standard library only; must not import Django or any app.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

ROOT: Final = Path(__file__).resolve().parent.parent

#: May be given as NAME_FILE, a file that holds the value: such a value is in no `docker inspect`.
SECRETS: Final = (
    "DATABASE_URL",
    "REDIS_URL",
    "GANTRY_SECRET_KEYS",
    "DJANGO_SECRET_KEY",
    "GANTRY_BOOTSTRAP_TOKEN",
    "GANTRY_ADMIN_PASSWORD",
    "FLOWER_BASIC_AUTH",
)
_SERVERS: Final = ("DATABASE_URL", "REDIS_URL")
#: What each process cannot do without. There are no defaults: a deployment names them or stops here.
NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "api": (*_SERVERS, "GANTRY_SECRET_KEYS", "DJANGO_SECRET_KEY"),
    "worker": (*_SERVERS, "GANTRY_SECRET_KEYS"),
    "callbacks": (*_SERVERS, "GANTRY_SECRET_KEYS"),
    "network": ("GANTRY_NETWORK_GUARD",),
    "flower": ("REDIS_URL", "FLOWER_BASIC_AUTH"),
    "port": (),
    "migrate": ("DATABASE_URL", "GANTRY_SECRET_KEYS"),
    "manage": ("DATABASE_URL",),
    "health": (),
}
#: What shows that it lives by a file (workers.vocabulary.pulse), and the setting that names it.
_PULSES: Final = {"callbacks": "GANTRY_CALLBACKS_PULSE", "network": "GANTRY_NETWORK_GUARD"}
#: Exit code (EX_CONFIG): a supervisor need not try again.
_CONFIG: Final = 78
#: Open connections of one API process; more wait for one to end.
_CONNECTIONS: Final = 2048
#: Seconds; a node whose last heartbeat is older counts as silent.
_SILENT_S: Final = 30.0


class CannotStart(Exception):
    """A setting is missing or wrong; the message says which and what to do."""


# --- command lines --------------------------------------------------------------------------------


def api_command(host: str, port: int, *, workers: int = 2, connections: int = _CONNECTIONS) -> list[str]:
    """The API server: `workers` processes with at most `connections` open connections each."""
    command = [sys.executable, "-m", "granian", "--interface", "asginl", "config.asgi:application"]
    options = ["--host", host, "--port", str(port)]
    # What granian calls backpressure are connections: idle ones count, until they have said nothing for so
    # many ms.
    size = [
        "--workers",
        str(workers),
        "--backpressure",
        str(connections),
        "--http1-header-read-timeout",
        "15000",
    ]
    limits = ["--backlog", "2048", "--http", "1", "--no-ws"]
    ends = ["--respawn-failed-workers", "--respawn-interval", "0.5", "--workers-kill-timeout", "8"]
    return [*command, *options, *size, *limits, *ends, "--no-access-log", "--log-level", "warning"]


def manage_command(*arguments: str) -> list[str]:
    return [sys.executable, "manage.py", *arguments]


def flower_command(host: str, port: int) -> list[str]:
    """Flower, read-only. Its password is in FLOWER_BASIC_AUTH: every user of a machine can list arguments."""
    limits = ["--read-only", "--max-tasks=10000", "--max-workers=500", "--purge-offline-workers=600"]
    where = [f"--address={host}", f"--port={port}"]
    return [sys.executable, "-m", "celery", "-A", "config", "flower", *where, *limits]


# --- environment ----------------------------------------------------------------------------------


def read_secret_files(environment: MutableMapping[str, str]) -> None:
    """Put the content of every NAME_FILE into NAME. Raises CannotStart."""
    for name in SECRETS:
        path = environment.pop(f"{name}_FILE", "")
        if not path:
            continue
        if environment.get(name):
            raise CannotStart(f"{name} and {name}_FILE are both set: keep one of them")
        try:
            text = Path(path).read_text().strip()
        except OSError as error:
            raise CannotStart(
                f"{name}_FILE: {path} cannot be read ({error.strerror}): make the secrets first, and let the "
                f"file belong to uid {os.geteuid()}"
            ) from None
        if not text:
            raise CannotStart(f"{name}_FILE: {path} is empty")
        environment[name] = text


def check_needed(what: str, environment: Mapping[str, str]) -> None:
    """Raises CannotStart when something is missing that has no safe default."""
    missing = [name for name in NEEDED[what] if not environment.get(name)]
    if missing:
        raise CannotStart(
            f"{what} needs {', '.join(missing)}: set it, or NAME_FILE to a file that holds it "
            "(docs/operations.md, Settings)"
        )


def number(environment: Mapping[str, str], name: str, default: int) -> int:
    """A positive whole number out of the environment. Raises CannotStart."""
    text = environment.get(name) or str(default)
    if not text.isdigit() or int(text) < 1:
        raise CannotStart(f"{name} is {text!r}: write a whole number from 1 on")
    return int(text)


# --- health ---------------------------------------------------------------------------------------


def health(what: str, environment: Mapping[str, str]) -> str:
    """What is wrong with the process `what` of this machine or container; "" when nothing is."""
    if what == "worker":
        return _worker_health(node_folder(environment))
    if what in _PULSES:
        name = _PULSES[what]
        return _pulse(environment[name]) if environment.get(name) else f"{name} is empty: name a file"
    if what == "flower":
        return _answers(f"http://127.0.0.1:{number(environment, 'GANTRY_FLOWER_PORT', 5555)}/healthcheck")
    # The server answers to its own names only.
    host = (environment.get("GANTRY_ALLOWED_HOSTS") or "localhost").split(",")[0].strip().lstrip(".")
    port = number(environment, "GANTRY_PORT", 8000)
    return _answers(f"http://127.0.0.1:{port}/healthz", "localhost" if host == "*" else host)


def node_folder(environment: Mapping[str, str]) -> Path:
    """The node's folder, found as config.settings finds it."""
    if given := environment.get("GANTRY_NODE_DIR"):
        return Path(given)
    data = Path(environment.get("GANTRY_DATA_DIR") or ROOT / "var")
    return data / "nodes" / (environment.get("GANTRY_NODE_NAME") or socket.gethostname())


def _answers(url: str, host: str = "") -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Host": host} if host else {})  # noqa: S310
    try:
        with opener.open(request, timeout=4) as response:
            response.read(4096)
    except (OSError, ValueError) as error:
        return f"{url}: {error}"
    return ""


def _worker_health(folder: Path) -> str:
    """Does a worker hold the folder, and has the database taken a heartbeat of it lately?"""
    try:
        with (folder / "worker.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    except OSError as error:
        return f"no worker has ever run in {folder}: {error.strerror}"
    else:
        return f"no worker holds {folder}"
    renewed = folder / "launcher" / "renewed"
    if not renewed.exists():
        return ""  # a node without the process runtime: its lock is all there is
    return "the database has taken no heartbeat of this node lately" if _pulse(str(renewed)) else ""


def _pulse(path: str) -> str:
    """What is wrong with a sign of life (boot id, seconds since boot, words); "" when nothing is."""
    try:
        boot, at = Path(path).read_text().split()[:2]
        here = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - float(at)
    except (OSError, ValueError) as error:
        return f"{path} shows no sign of life: {error}"
    return f"{path}: the last sign of life is {age:.0f} s old" if boot != here or age > _SILENT_S else ""


# --- start ----------------------------------------------------------------------------------------


def command_for(what: str, arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The command line of a process. Raises CannotStart."""
    host = environment.get("GANTRY_BIND") or "127.0.0.1"
    if what == "api":
        workers = number(environment, "GANTRY_API_WORKERS", 2)
        connections = number(environment, "GANTRY_API_CONNECTIONS", _CONNECTIONS)
        return api_command(
            host, number(environment, "GANTRY_PORT", 8000), workers=workers, connections=connections
        )
    if what == "flower":
        return flower_command(host, number(environment, "GANTRY_FLOWER_PORT", 5555))
    if what == "manage":
        return manage_command(*arguments)
    return manage_command({"worker": "node"}.get(what, what))


def _migrate(environment: Mapping[str, str]) -> NoReturn:
    """The schema, then the first tenant, user and token as far as they are missing."""
    child = os.spawnve(os.P_WAIT, sys.executable, manage_command("migrate", "--noinput"), dict(environment))
    if child != 0:
        sys.exit(child if child > 0 else 1)
    _become(manage_command("bootstrap"), environment)


def hold_port(host: str, port: int) -> socket.socket:
    """The API's port, bound as long as the caller keeps the socket. Raises CannotStart when it is taken.

    It never listens, so it gets no connection. Linux lets another socket bind beside it only where both ask
    for SO_REUSEPORT and belong to one uid (socket(7)): the API of the same account does, a command cannot,
    also while the API restarts or is stopped.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    held = socket.socket(family, kind, protocol)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        held.bind(address)
    except OSError as error:
        held.close()
        raise CannotStart(
            f"port {port} of {host} cannot be held for the API ({error.strerror}): stop who uses it "
            "(ss -tanp shows it), or change GANTRY_PORT"
        ) from None
    return held


def _hold(environment: Mapping[str, str]) -> NoReturn:
    """Hold the API's port until a signal ends this process; tells systemd that it does."""
    host = environment.get("GANTRY_BIND") or "127.0.0.1"
    with hold_port(host, number(environment, "GANTRY_PORT", 8000)):
        if address := environment.get("NOTIFY_SOCKET"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
                told.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)
        while True:
            signal.pause()


def _become(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    os.execve(command[0], command, environment)


def main(arguments: Sequence[str]) -> int:
    what, *rest = arguments or [""]
    if what not in NEEDED:
        return _complain(f"usage: gantry {'|'.join(NEEDED)} [arguments]", 64)
    environment = dict(os.environ)
    try:
        if what == "health":
            problem = health(rest[0] if rest else "api", environment)
            return _complain(problem, 1) if problem else 0
        prepare(what, environment)
        os.chdir(ROOT)
        if what == "migrate":
            _migrate(environment)
        if what == "port":
            _hold(environment)
        _become(command_for(what, rest, environment), environment)
    except CannotStart as error:
        return _complain(f"gantry: {error}", _CONFIG)


def prepare(what: str, environment: MutableMapping[str, str]) -> None:
    """Make the environment of the process `what` complete. Raises CannotStart."""
    read_secret_files(environment)
    check_needed(what, environment)
    environment.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    if what != "manage":
        environment["GANTRY_ROLE"] = "worker" if what in ("worker", "callbacks") else "web"


def _complain(text: str, code: int) -> int:
    sys.stderr.write(f"{text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
