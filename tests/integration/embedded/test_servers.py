"""The embedded Postgres and Redis alike: real servers, started, shared, frozen and stopped."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.local.embedded import EmbeddedServer
from config.local.errors import LocalError
from config.local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.support.cluster import free_port
from tests.support.waiting import limit

REPOSITORY = Path(__file__).resolve().parents[3]


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


@pytest.mark.account
@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_a_server_is_detached_from_its_starter(folder: Path, kind: type[EmbeddedServer]) -> None:
    """Its own session (so Ctrl-C does not reach it), nobody's child, and it outlives the starter."""
    name = "pg" if kind is EmbeddedPostgres else "redis"
    program = f"from config.local.servers import {kind.__name__} as S; S({str(folder / name)!r}).start()"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True, timeout=limit(180))

    server = kind(folder / name)
    pid = server.pid
    assert pid is not None
    assert os.getsid(pid) != os.getsid(0)
    assert os.getpgid(pid) != os.getpgid(0)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert fields[4] == "0", "has a controlling terminal"


@pytest.mark.account
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


@pytest.mark.account
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

    server.stop(timeout=limit(100))

    assert server.pids == []
