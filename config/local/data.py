"""The data folder of one installation on one machine: who holds it, its secrets, its children's environment.

    <data>/lock      held by the supervisor            <data>/secrets/   0600 files, made at first start
    <data>/postgres  the embedded servers              <data>/log/       one file per child
    <data>/redis                                       <data>/nodes/     each node's own folder

Must not import Django or any app.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from pathlib import Path

from cryptography.fernet import Fernet

from config.local.embedded import EmbeddedServer
from config.local.errors import LocalError
from config.local.processes import kept_secret
from config.local.servers import EmbeddedPostgres, EmbeddedRedis

REPOSITORY = Path(__file__).resolve().parents[2]


class DataFolder:
    """Paths, secrets and locks below GANTRY_DATA_DIR (default var/ of the checkout)."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path or os.environ.get("GANTRY_DATA_DIR") or REPOSITORY / "var").absolute()
        try:
            self.path.mkdir(mode=0o711, parents=True, exist_ok=True)
        except (FileExistsError, PermissionError, NotADirectoryError) as error:
            raise LocalError(f"GANTRY_DATA_DIR {self.path} cannot be made: {error.strerror}") from None
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise LocalError(f"GANTRY_DATA_DIR {self.path} cannot be written by uid {os.geteuid()}")
        if os.geteuid() == 0:
            # A command runs as a user of its own and must get through to its scratch folder; everything
            # that is not for it lies in a 0700 folder further down.
            self.path.chmod(self.path.stat().st_mode & 0o777 | 0o011)
        self.log = self._private("log")
        self.secrets = self._private("secrets")
        self._held: list[int] = []

    def _private(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        return folder

    def hold(self, name: str, refusal: str) -> None:
        """Takes the lock `name` until this process ends; LocalError with `refusal` if another one has it."""
        descriptor = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise LocalError(refusal.format(pid=holder, data=self.path)) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._held.append(descriptor)

    def hold_node(self, name: str) -> None:
        """Takes the name of a node on this machine."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise LocalError(
                f"GANTRY_NODE_NAME is {name!r}: use at most 100 letters, digits, '.', '_' and '-', and begin "
                "with a letter or digit"
            )
        self.hold(
            f"node-{name}.lock",
            f"node {name} runs already on this machine (process {{pid}}): set GANTRY_NODE_NAME to another",
        )

    def release(self) -> None:
        while self._held:
            os.close(self._held.pop())

    def postgres(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self.path / "postgres")

    def redis(self) -> EmbeddedRedis:
        return EmbeddedRedis(self.path / "redis")

    def embedded(self) -> list[EmbeddedServer]:
        """The servers that the environment does not name, in the order in which they start."""
        servers: list[EmbeddedServer] = []
        if not os.environ.get("DATABASE_URL"):
            servers.append(self.postgres())
        if not os.environ.get("REDIS_URL"):
            servers.append(self.redis())
        return servers

    def running(self) -> list[EmbeddedServer]:
        """The same, which somebody has started before."""
        servers = self.embedded()
        for server in servers:
            if not server.running:
                raise LocalError(
                    f"{server.title} of {self.path} does not run: start `make up` first, or set DATABASE_URL "
                    "and REDIS_URL"
                )
        return servers

    @property
    def secret_keys(self) -> Path:
        return self.secrets / "secret-keys"

    def flower_password(self) -> str:
        return kept_secret(self.secrets / "flower-password")

    def environment(self, servers: list[EmbeddedServer]) -> dict[str, str]:
        """The children's environment: the caller's, and what it left open."""
        made = {
            "GANTRY_DATA_DIR": str(self.path),
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "PYTHONUNBUFFERED": "1",
        }
        for server in servers:
            made["DATABASE_URL" if isinstance(server, EmbeddedPostgres) else "REDIS_URL"] = server.url
        if not os.environ.get("GANTRY_SECRET_KEYS"):
            made["GANTRY_SECRET_KEYS"] = kept_secret(
                self.secret_keys, lambda: Fernet.generate_key().decode("ascii")
            )
        if not os.environ.get("DJANGO_SECRET_KEY"):
            made["DJANGO_SECRET_KEY"] = kept_secret(self.secrets / "django-secret-key")
        return {**os.environ, **made}


def port_from(name: str, default: int) -> int:
    """A TCP port out of the environment."""
    text = os.environ.get(name) or str(default)
    if not text.isdigit() or not 0 < int(text) < 65_536:
        raise LocalError(f"{name} is {text!r}: a port is a number from 1 to 65535")
    return int(text)


def check_port_is_free(name: str, port: int) -> None:
    """LocalError when something listens on 127.0.0.1:port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise LocalError(
                f"{name}={port}: this account may not use that port; take one above 1023"
            ) from None
        except OSError:
            raise LocalError(
                f"port {port} is taken by another program: stop it (ss -ltnp shows which), or choose another "
                f"port, for instance {name}={port + 1 if port < 65_535 else 8000}"
            ) from None


def hold_port(name: str, port: int) -> socket.socket:
    """127.0.0.1:port, bound for as long as the caller keeps the socket open; LocalError when it is taken.

    It never listens, so it gets no connection. Linux lets another socket bind beside it only where both ask
    for SO_REUSEPORT and belong to one uid (socket(7)): granian does, a command of another account cannot,
    also while the API restarts. With SO_REUSEADDR, too, anybody could.
    """
    check_port_is_free(name, port)
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        held.bind(("127.0.0.1", port))
    except OSError as error:
        held.close()
        raise LocalError(
            f"{name}={port} cannot be held for the API ({error.strerror}): stop who uses that port "
            "(ss -tanp shows it), or choose another one"
        ) from None
    return held
