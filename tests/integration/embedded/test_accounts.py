"""Whose processes the embedded servers are: root's, an ordinary account's, with and without namespaces."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from config.local import processes
from config.local.embedded import EmbeddedServer
from config.local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.support.waiting import limit

REPOSITORY = Path(__file__).resolve().parents[3]


def owner(server: EmbeddedServer) -> int:
    """The account of the main process: its children are forked from it, and come and go."""
    return Path(f"/proc/{server.pid}").stat().st_uid


@pytest.mark.account
def test_the_servers_account(postgres: EmbeddedPostgres, cache: EmbeddedRedis) -> None:
    """A named account's servers run as itself; root's in a user namespace, without root's powers."""
    for server in (postgres, cache):
        assert owner(server) == server.account.uid
        apart = Path(f"/proc/{server.pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()
        assert apart == bool(server.account.prefix)


@pytest.mark.account
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


@pytest.mark.account
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
        timeout=limit(200),
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(expected)] * 2
