"""The supervisor's parts with real child processes: restarts, ends, locks, secrets, refusals."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from config.local.children import LOG_LIMIT, Child, rotate_when_long
from config.local.data import REPOSITORY, DataFolder, hold_port
from config.local.errors import LocalError
from config.local.supervisor import Supervisor
from config.local.temporary import free_ports
from tests.support.cluster import free_port
from tests.support.waiting import holds_for, limit, wait_until

pytestmark = pytest.mark.daemons


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def child(folder: Path, program: str, *, own_group: bool = False, grace: float = 5) -> Child:
    return Child(
        name="probe",
        command=[sys.executable, "-c", program],
        environment={"PATH": os.environ["PATH"]},
        log=folder / "probe.log",
        grace=grace,
        own_group=own_group,
    )


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def run_local(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GANTRY_", "DATABASE_", "REDIS_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "config.local", *arguments],
        cwd=REPOSITORY,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=limit(180),
        check=False,
    )


# --- children -----------------------------------------------------------------------------------------


def test_a_child_that_ends_is_started_again_later_each_time(folder: Path) -> None:
    probe = child(folder, "import sys; print('born', flush=True); sys.exit(3)")
    probe.start()
    news: list[str] = []

    def told() -> bool:
        if (sentence := probe.look()) is not None:
            news.append(sentence)
        return len(news) == 5

    wait_until(told, why="three ends are told", see=lambda: news)
    assert news[1::2] == ["started again"] * 2
    waits = [sentence.partition(" in ")[2].partition(";")[0] for sentence in news[::2]]
    assert waits == ["0.5 s", "1 s", "2 s"]
    assert re.match(r"ended with status 3 after \d+ s, ", news[0]), news[0]
    assert news[0].endswith(f"; see {probe.log}: born")
    assert probe.log.read_text().count("born") == 3
    assert stat.S_IMODE(probe.log.stat().st_mode) == 0o600


def test_a_long_last_line_shows_that_it_is_cut(folder: Path) -> None:
    probe = child(folder, "print('x' * 300); exit(1)")
    probe.start()
    news: list[str] = []

    def ended() -> bool:
        news.append(probe.look() or "")
        return bool(news[-1])

    wait_until(ended, why="its end is told")
    assert news[-1].endswith(f"; see {probe.log}: ... " + "x" * 200)


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("os.kill(os.getpid(), 9)", ""),
        ("sys.exit(1)", ""),
        ("raise OSError('no disk')", ": OSError: no disk"),
    ],
)
def test_the_reason_of_an_end_is_no_line_about_its_work(folder: Path, end: str, told: str) -> None:
    """Catches a request that it answered before, told as the reason, and the words of an earlier start."""
    (folder / "probe.log").write_text("Error: of the start before\n")
    lines = (
        '{"status": 200, "event": "request", "level": "info"}',
        "2026-12-01T03:00:00Z [info     ] run.ended",
        "[I 261201 03:00:00 command:168] Visit me",
    )
    probe = child(folder, f"import os, sys\nfor line in {lines}: print(line, flush=True)\n{end}")
    probe.start()
    news = wait_until(probe.look, why="its end is told")
    assert news.endswith(f"; see {probe.log}{told}"), news


def test_a_killed_child_is_named_so(folder: Path) -> None:
    probe = child(folder, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    probe.start()
    news = wait_until(probe.look, why="its end is told")
    assert news.startswith("was killed by SIGKILL")


def test_a_child_is_in_its_own_session(folder: Path) -> None:
    probe = child(folder, "import time; time.sleep(600)")
    probe.start()
    assert probe.pid is not None
    wait_until(lambda: os.getsid(probe.pid or 0) == probe.pid, why="it has a session of its own")
    probe.end_now()
    assert probe.ended()


def test_a_child_that_ignores_term_is_killed_and_its_group_only_if_it_is_its_own(folder: Path) -> None:
    """The worker's group may hold a launcher that keeps commands alive: that one stays."""
    program = (
        "import signal, subprocess, time; signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True));"
        "p = subprocess.Popen(['sleep', '600.25']); print(p.pid, flush=True); time.sleep(600)"
    )
    for own_group in (True, False):
        probe = child(folder, program, own_group=own_group)
        probe.log.unlink(missing_ok=True)
        probe.start()
        wait_until(lambda: probe.log.read_text().strip().isdigit(), why="it is up")  # noqa: B023
        grandchild = int(probe.log.read_text())
        probe.ask_to_end()
        wait_until(lambda: "no" in probe.log.read_text(), why="it heard that it is to end")  # noqa: B023
        assert not probe.ended()

        probe.end_now()

        assert probe.ended()
        if own_group:
            wait_until(lambda: not alive(grandchild), why="its group is killed")  # noqa: B023
        else:
            assert alive(grandchild)
            os.kill(grandchild, signal.SIGKILL)


def test_who_asks_twice_does_not_wait_for_one_that_ignores_it(folder: Path) -> None:
    """Its grace period would be an hour."""
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)"
    probe = child(folder, f"{program}; time.sleep(600)", grace=3600)
    probe.start()
    wait_until(lambda: "up" in probe.log.read_text(), why="it is up")
    supervisor = Supervisor(DataFolder(folder / "data"))
    supervisor.asked = 2
    supervisor._stop_child(probe)
    assert probe.ended()


def test_who_has_the_number_of_a_dead_child_is_spared(folder: Path) -> None:
    """Catches a stop that kills a stranger: numbers of processes come again, on a busy machine soon."""
    probe = child(folder, "pass", own_group=True)
    probe.start()
    wait_until(probe.ended, why="it ends")
    assert probe._process is not None
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        probe._process.pid = stranger.pid  # as if it had been given the number since
        probe.end_now()
        holds_for(lambda: stranger.poll() is None, 1, "the stranger lives")
        stranger.kill()


def test_children_end_when_the_supervisor_is_killed(folder: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from config.local.children import Child
child = Child("probe", ["sleep", "600"], {{"PATH": "/usr/bin:/bin"}}, Path({str(folder)!r}) / "log", 5, False)
child.start()
print(child.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(lambda: Path(f"/proc/{pid}/comm").read_text().strip() == "sleep", why="it sleeps")
        parent.kill()
    wait_until(lambda: not alive(pid), why="the child ends")


def test_a_long_log_is_rotated_while_its_child_writes(folder: Path) -> None:
    probe = child(folder, "import time\nwhile True: print('x', flush=True); time.sleep(0.01)")
    probe.start()
    with probe.log.open("ab") as log:
        log.truncate(LOG_LIMIT + 1)

    rotate_when_long(probe.log)

    assert probe.log.stat().st_size < LOG_LIMIT / 2
    assert probe.log.with_name("probe.log.1").stat().st_size >= LOG_LIMIT
    wait_until(lambda: probe.log.stat().st_size > 0, why="it writes on")
    probe.end_now()


# --- the data folder ----------------------------------------------------------------------------------


def test_secrets_are_made_once_and_kept_private(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GANTRY_SECRET_KEYS", "DJANGO_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    data = DataFolder(folder / "data")
    first = data.environment([])

    second = DataFolder(folder / "data").environment([])

    assert first["GANTRY_SECRET_KEYS"] == second["GANTRY_SECRET_KEYS"]
    assert first["DJANGO_SECRET_KEY"] == second["DJANGO_SECRET_KEY"]
    Fernet(first["GANTRY_SECRET_KEYS"])
    assert len(first["DJANGO_SECRET_KEY"]) >= 40
    assert stat.S_IMODE(data.secrets.stat().st_mode) == 0o700
    for name in ("secret-keys", "django-secret-key"):
        assert stat.S_IMODE((data.secrets / name).stat().st_mode) == 0o600


def test_secrets_of_the_environment_are_taken_and_not_stored(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANTRY_SECRET_KEYS", "given")
    monkeypatch.setenv("DJANGO_SECRET_KEY", "given too")
    data = DataFolder(folder / "data")

    environment = data.environment([])

    assert environment["GANTRY_SECRET_KEYS"] == "given"
    assert environment["DJANGO_SECRET_KEY"] == "given too"
    assert list(data.secrets.iterdir()) == []


def test_no_embedded_server_for_what_the_environment_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgres://gantry@db.example/gantry")
    data = DataFolder(folder / "data")
    assert [server.title for server in data.embedded()] == ["embedded Redis"]
    monkeypatch.setenv("REDIS_URL", "redis://cache.example/0")
    assert data.embedded() == []


def test_two_supervisors_cannot_hold_one_folder(folder: Path) -> None:
    first, second = DataFolder(folder / "data"), DataFolder(folder / "data")
    first.hold("lock", "in use")
    with pytest.raises(LocalError, match=f"{folder}/data is held by {os.getpid()}"):
        second.hold("lock", "{data} is held by {pid}")
    first.release()
    second.hold("lock", "in use")
    second.release()


# --- messages -----------------------------------------------------------------------------------------


def test_up_names_a_taken_port_and_the_way_out(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        done = run_local("up", GANTRY_DATA_DIR=str(folder / "data"), GANTRY_PORT=str(port))

    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert "GANTRY_PORT=" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "data" / "postgres").exists()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"GANTRY_PORT": "many"}, "GANTRY_PORT is 'many'"),
        ({"GANTRY_PORT": "8123", "GANTRY_FLOWER_PORT": "8123"}, "are both 8123"),
        ({"GANTRY_NODE_NAME": "a/b"}, "GANTRY_NODE_NAME is 'a/b'"),
        ({"GANTRY_DATA_DIR": "/dev/null/data"}, "GANTRY_DATA_DIR /dev/null/data cannot be made"),
    ],
)
def test_up_says_what_is_wrong_with_its_settings(
    folder: Path, environment: dict[str, str], message: str
) -> None:
    free = {"GANTRY_PORT": str(free_port()), "GANTRY_FLOWER_PORT": str(free_port())}
    done = run_local("up", **{"GANTRY_DATA_DIR": str(folder / "data"), **free, **environment})
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_without_a_service_says_what_it_misses(folder: Path) -> None:
    done = run_local("worker", GANTRY_DATA_DIR=str(folder / "data"))
    assert done.returncode == 1
    assert "no GANTRY_SECRET_KEYS" in done.stderr

    done = run_local("worker", GANTRY_DATA_DIR=str(folder / "data"), GANTRY_SECRET_KEYS="given")
    assert done.returncode == 1
    assert "start `make up` first" in done.stderr


#: Takes a port as a command would: argument 1 the port, 2 the uid, the others the options of its socket.
TAKER = """
import os, socket, sys
port, uid, *options = map(int, sys.argv[1:])
if uid != os.getuid():
    os.setuid(uid)
taker = socket.socket()
for option in options:
    taker.setsockopt(socket.SOL_SOCKET, option, 1)
taker.bind(("127.0.0.1", port))
taker.listen()
"""


def taken_by(port: int, uid: int, *options: int) -> bool:
    words = [str(int(word)) for word in (port, uid, *options)]
    done = subprocess.run(
        [sys.executable, "-c", TAKER, *words], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0 or "Address already in use" in done.stderr, done.stderr
    return done.returncode == 0


def test_no_command_takes_the_port_that_is_held_for_the_api() -> None:
    address, port_shared = socket.SO_REUSEADDR, socket.SO_REUSEPORT
    [port], own = free_ports(1), os.getuid()
    # A command of another account where this one may start such; an ordinary user's commands are that user.
    others = 4242 if own == 0 else own
    with hold_port("GANTRY_PORT", port):
        tried: list[tuple[int, ...]] = [(), (address,)]
        if others != own:
            tried += [(port_shared,), (address, port_shared)]
        assert [options for options in tried if taken_by(port, others, *options)] == []
        # What granian does: it serves beside the held socket.
        assert taken_by(port, own, port_shared)
    assert taken_by(port, others)


def test_a_port_that_somebody_holds_is_told_at_the_start() -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))  # not even listening: a look at who answers would not see it
        port = stranger.getsockname()[1]
        with pytest.raises(LocalError, match=f"port {port} is taken by another program"):
            hold_port("GANTRY_PORT", port)
