"""The embedded Postgres and Redis: real servers, started, shared, killed and started again."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.local import processes
from config.local.embedded import EmbeddedServer
from config.local.errors import LocalError
from config.local.servers import EmbeddedPostgres, EmbeddedRedis, postgres_programs

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path (a unix socket's address has 108 bytes), open to others: servers close theirs."""
    path = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    path.chmod(0o755)
    yield path
    for server in (EmbeddedPostgres(path / "pg"), EmbeddedRedis(path / "redis")):
        server.stop("immediate")
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def initialised() -> Iterator[Path]:
    """A folder after initdb, for copies: initdb takes longer than most tests."""
    path = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    server = EmbeddedPostgres(path / "pg")
    server.start()
    server.stop()
    yield path / "pg"
    shutil.rmtree(path)


@pytest.fixture
def postgres(folder: Path, initialised: Path) -> EmbeddedPostgres:
    shutil.copytree(initialised, folder / "pg")
    server = EmbeddedPostgres(folder / "pg")
    server.start()
    return server


@pytest.fixture
def cache(folder: Path) -> EmbeddedRedis:
    server = EmbeddedRedis(folder / "redis")
    server.start()
    return server


def query(server: EmbeddedPostgres, statement: str) -> list[tuple[Any, ...]]:
    connection = server.connect()
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listening_ports(server: EmbeddedServer) -> set[int]:
    """TCP ports on which the main process listens, read from the kernel; its children have them from it."""
    targets = [str(entry.readlink()) for entry in Path(f"/proc/{server.pid}/fd").iterdir()]
    inodes = {target[8:-1] for target in targets if target.startswith("socket:[")}
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not Path(table).exists():
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


# --- both ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_start_is_idempotent_and_shared(folder: Path, kind: type[EmbeddedServer]) -> None:
    name = "pg" if kind is EmbeddedPostgres else "redis"
    first = kind(folder / name)
    first.start()
    pid = first.pid
    assert pid is not None

    second = kind(folder / name)
    second.start()

    assert second.pid == pid
    assert second.url == first.url
    second.stop()
    assert not first.running
    assert first.pids == []
    first.stop()  # twice is as good as once


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_ten_starters_at_once_get_one_server(folder: Path, kind: type[EmbeddedServer]) -> None:
    name = "pg" if kind is EmbeddedPostgres else "redis"
    pids: list[int | None] = []

    def start() -> None:
        server = kind(folder / name)
        server.start()
        pids.append(server.pid)

    starters = [threading.Thread(target=start) for _ in range(10)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()

    assert len(pids) == 10
    assert len(set(pids)) == 1
    assert pids[0] is not None


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_a_server_is_detached_from_its_starter(folder: Path, kind: type[EmbeddedServer]) -> None:
    """Its own session (so Ctrl-C does not reach it), nobody's child, and it outlives the starter."""
    name = "pg" if kind is EmbeddedPostgres else "redis"
    program = f"from config.local.servers import {kind.__name__} as S; S({str(folder / name)!r}).start()"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True, timeout=60)

    server = kind(folder / name)
    pid = server.pid
    assert pid is not None
    assert os.getsid(pid) != os.getsid(0)
    assert os.getpgid(pid) != os.getpgid(0)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert fields[4] == "0", "has a controlling terminal"


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_only_a_private_unix_socket(folder: Path, kind: type[EmbeddedServer]) -> None:
    name = "pg" if kind is EmbeddedPostgres else "redis"
    server = kind(folder / name)
    server.start()

    assert listening_ports(server) == set()
    for private in (server.folder, server.folder / "run"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    secret = server.folder / "password"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    for what in ("cmdline", "environ"):
        shown = Path(f"/proc/{server.pid}/{what}").read_text()
        assert shown
        assert server.password not in shown


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_a_password_that_others_can_read_is_refused(folder: Path, kind: type[EmbeddedServer]) -> None:
    name = "pg" if kind is EmbeddedPostgres else "redis"
    server = kind(folder / name)
    assert server.password
    (server.folder / "password").chmod(0o644)

    with pytest.raises(LocalError, match="chmod 600"):
        server.start()
    assert not server.running


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_a_long_path_gets_a_short_socket(folder: Path, kind: type[EmbeddedServer]) -> None:
    server = kind(folder / ("deep" * 25) / "server")
    server.start()
    try:
        assert server.running
        again = kind(folder / ("deep" * 25) / "server")
        assert again.url == server.url
        assert server.sockets.parent == Path(f"/tmp/gantry-{server.account.uid}")
        for place in (server.sockets, server.sockets.parent):
            found = place.lstat()
            assert stat.S_ISDIR(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o700
            assert found.st_uid == server.account.uid
    finally:
        server.stop()
        shutil.rmtree(server.sockets)


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_tcp_on_loopback_only_when_asked_and_with_the_password(
    folder: Path, kind: type[EmbeddedServer]
) -> None:
    port = free_port()
    server = kind(folder / ("pg" if kind is EmbeddedPostgres else "redis"), port=port)
    server.start()

    assert listening_ports(server) == {port}
    assert f"127.0.0.1:{port}" in server.url
    if kind is EmbeddedPostgres:
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(host="127.0.0.1", port=port, user="gantry", password="wrong", dbname="gantry")
    else:
        client = redis.Redis(host="127.0.0.1", port=port, retry=Retry(NoBackoff(), 0))
        with pytest.raises(redis.exceptions.AuthenticationError):
            client.ping()
        client.close()


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_a_frozen_server_can_be_stopped(folder: Path, kind: type[EmbeddedServer]) -> None:
    server = kind(folder / ("pg" if kind is EmbeddedPostgres else "redis"))
    server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)

    server.stop(timeout=20)

    assert server.pids == []


# --- Postgres -----------------------------------------------------------------------------------------


def test_durability_is_at_its_defaults(postgres: EmbeddedPostgres) -> None:
    shown = dict(query(postgres, "SELECT name, setting FROM pg_settings"))
    assert shown["fsync"] == "on"
    assert shown["synchronous_commit"] == "on"
    assert shown["full_page_writes"] == "on"
    assert shown["max_connections"] == "200"
    assert shown["listen_addresses"] == ""


def test_nobody_gets_in_without_the_password(postgres: EmbeddedPostgres) -> None:
    host = str(postgres.folder / "run")
    for user, password in (("gantry", "wrong"), ("gantry", ""), ("postgres", postgres.password)):
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(host=host, user=user, password=password, dbname="gantry")
    assert query(postgres, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(False,)]
    [(stored,)] = query(postgres, "SELECT current_setting('password_encryption')")
    assert stored == "scram-sha-256"


def test_names_sort_and_fold_alike_on_every_machine(postgres: EmbeddedPostgres) -> None:
    assert query(postgres, "SELECT lower('ÄÖ'), getdatabaseencoding()") == [("äö", "UTF8")]


@pytest.mark.parametrize("blow", ["kill", "immediate", "every process"])
def test_committed_rows_survive_a_crash(postgres: EmbeddedPostgres, blow: str) -> None:
    query(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
    if blow == "kill":
        postgres.kill()
    elif blow == "immediate":
        postgres.stop("immediate")
    else:
        for pid in postgres.pids:
            with contextlib.suppress(ProcessLookupError):  # the others go when they see the first one gone
                os.kill(pid, signal.SIGKILL)
    began = time.monotonic()

    postgres.start()

    assert query(postgres, "SELECT answer FROM kept") == [(42,)]
    assert time.monotonic() - began < 20


def test_a_stale_pid_file_that_names_a_living_stranger(postgres: EmbeddedPostgres) -> None:
    """After a power cut the number in the pid file may be anybody's: here, this test's own."""
    pid_file = postgres.folder / "data" / "postmaster.pid"
    socket_lock = postgres.folder / "run" / ".s.PGSQL.5432.lock"
    kept = {path: path.read_text() for path in (pid_file, socket_lock)}
    old = str(postgres.pid)
    postgres.stop()
    for path, text in kept.items():
        path.write_text(text.replace(old, str(os.getpid()), 1))
    assert not postgres.running

    postgres.start()

    assert postgres.pid not in (None, os.getpid())


def test_an_interrupted_initdb_is_done_again(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "pg")
    half = server.folder / "data.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")

    server.start()

    assert query(server, "SELECT 1") == [(1,)]
    assert not half.exists()


def test_a_lost_password_file_is_replaced(postgres: EmbeddedPostgres) -> None:
    postgres.stop()
    old = postgres.password
    (postgres.folder / "password").unlink()

    postgres.start()

    assert postgres.password != old
    assert query(postgres, "SELECT 1") == [(1,)]


def test_a_data_folder_of_another_postgres_is_refused(postgres: EmbeddedPostgres) -> None:
    postgres.stop()
    version = postgres.folder / "data" / "PG_VERSION"
    kept = version.read_text()
    version.write_text("9\n")

    with pytest.raises(LocalError, match="of Postgres 9"):
        postgres.start()

    version.write_text(kept)
    postgres.start()


def test_a_bad_setting_is_shown_with_the_log(postgres: EmbeddedPostgres) -> None:
    postgres.stop()
    with (postgres.folder / "data" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")

    with pytest.raises(LocalError, match="no_such_setting"):
        postgres.start()


def test_the_newest_postgres_of_the_wheel_is_used() -> None:
    assert postgres_programs() == postgres_programs("18")


# --- Redis --------------------------------------------------------------------------------------------


def test_redis_refuses_strangers_and_evicts_nothing(cache: EmbeddedRedis) -> None:
    stranger = redis.Redis(unix_socket_path=str(cache.socket), retry=Retry(NoBackoff(), 0))
    with pytest.raises(redis.exceptions.AuthenticationError):
        stranger.ping()
    stranger.close()

    client = cache.client()
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert client.config_get("appendonly") == {"appendonly": "no"}
    assert client.config_get("save") == {"save": ""}
    client.close()


def test_redis_is_killed_and_comes_back_empty(cache: EmbeddedRedis) -> None:
    client = cache.client()
    client.set("a", "1")
    client.close()
    first = cache.pid

    cache.kill()
    cache.start()

    assert cache.pid not in (None, first)
    client = cache.client()
    assert client.dbsize() == 0
    client.close()


# --- accounts -----------------------------------------------------------------------------------------


def owner(server: EmbeddedServer) -> int:
    """The account of the main process: its children are forked from it, and come and go."""
    return Path(f"/proc/{server.pid}").stat().st_uid


def test_the_servers_account(postgres: EmbeddedPostgres, cache: EmbeddedRedis) -> None:
    """A named account's servers run as itself; root's in a user namespace, without root's powers."""
    for server in (postgres, cache):
        assert owner(server) == server.account.uid
        apart = Path(f"/proc/{server.pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()
        assert apart == bool(server.account.prefix)


def test_as_root_a_folder_of_an_ordinary_account_stays_its_own(folder: Path) -> None:
    """Whoever is not root has no choice of account: the same assertions hold for the own one."""
    uid = 23_456 if os.geteuid() == 0 else os.geteuid()
    for kind, name in ((EmbeddedPostgres, "pg"), (EmbeddedRedis, "redis")):
        (folder / name).mkdir(mode=0o700)
        os.chown(folder / name, uid, -1)
        server = kind(folder / name)

        server.start()

        assert owner(server) == uid
        server.kill()
        server.start()
        server.stop()
        assert server.pids == []


WITHOUT_NAMESPACES = """
import os
from config.local.processes import account_for
from config.local.servers import EmbeddedPostgres, EmbeddedRedis
from pathlib import Path
import sys
folder = Path(sys.argv[1])
for server in (EmbeddedPostgres(folder / "pg"), EmbeddedRedis(folder / "redis")):
    server.start()
    pids = server.pids
    assert pids and server.pid == pids[0], pids
    owner = Path(f"/proc/{server.pid}").stat().st_uid
    server.kill()
    server.start()
    server.stop()
    assert server.pids == []
    print(owner)
"""


def test_without_user_namespaces_root_drops_to_nobody(folder: Path) -> None:
    """As in many containers: no unshare, and root may not look into other accounts' processes."""
    programs = folder / "bin"
    programs.mkdir()
    setsid, setpriv = processes.program_on_path("setsid"), processes.program_on_path("setpriv")
    assert setsid is not None
    assert setpriv is not None
    (programs / "setsid").symlink_to(setsid)
    command = [sys.executable, "-c", WITHOUT_NAMESPACES, str(folder)]
    expected = os.geteuid()
    if os.geteuid() == 0:
        drop = "-sys_ptrace,-sys_admin"
        command = [str(setpriv), f"--bounding-set={drop}", f"--inh-caps={drop}", *command]
        expected = pwd.getpwnam("nobody").pw_uid

    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(expected)] * 2
