"""config.start: the command lines of a deployment's processes, secrets in files, refusals, health."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from config import start
from tests.support.waiting import limit
from workers.vocabulary import pulse

_COMPLETE = {
    "DATABASE_URL": "postgres://a:b@c/d",
    "REDIS_URL": "redis://e",
    "GANTRY_SECRET_KEYS": "k",
    "DJANGO_SECRET_KEY": "s",
    "FLOWER_BASIC_AUTH": "gantry:p",
}


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "config.start", *arguments],
        cwd=start.ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("what", [name for name, needed in start.NEEDED.items() if needed])
def test_nothing_starts_without_what_it_needs(what: str) -> None:
    """Catches a default password or key in a deployment."""
    for name in start.NEEDED[what]:
        environment = {key: value for key, value in _COMPLETE.items() if key != name}
        with pytest.raises(start.CannotStart, match=f"{what} needs {name}"):
            start.prepare(what, environment)
    refused = _run(what)
    assert refused.returncode == 78
    assert start.NEEDED[what][0] in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    """Catches a file that is not read, read with its newline, or passed over in silence."""
    file = tmp_path / "url"
    file.write_text("postgres://x:y@z/w\n")
    environment = {**_COMPLETE, "DATABASE_URL": "", "DATABASE_URL_FILE": str(file)}
    start.prepare("worker", environment)
    assert environment["DATABASE_URL"] == "postgres://x:y@z/w"
    assert environment["GANTRY_ROLE"] == "worker"
    assert "DATABASE_URL_FILE" not in environment
    for wrong, words in (
        ({"DATABASE_URL": "a", "DATABASE_URL_FILE": str(file)}, "are both set"),
        ({"DATABASE_URL_FILE": str(tmp_path / "absent")}, "cannot be read"),
        ({"DATABASE_URL_FILE": str(tmp_path)}, "cannot be read"),
        ({"DATABASE_URL_FILE": os.devnull}, "is empty"),
    ):
        with pytest.raises(start.CannotStart, match=words):
            start.read_secret_files(dict(wrong))


def test_the_command_lines() -> None:
    """Catches an API that listens elsewhere than asked, and a Flower that may change things."""
    api = start.command_for("api", [], {"GANTRY_BIND": "0.0.0.0", "GANTRY_API_WORKERS": "4"})
    assert " --host 0.0.0.0 --port 8000 --workers 4 --backpressure 2048 " in " ".join(api)
    flower = start.command_for("flower", [], {"GANTRY_FLOWER_PORT": "5999"})
    assert {"--read-only", "--address=127.0.0.1", "--port=5999"} <= set(flower)
    assert start.command_for("worker", [], {})[1:] == ["manage.py", "node"]
    assert start.command_for("manage", ["create_token", "admin"], {})[1:] == [
        "manage.py",
        "create_token",
        "admin",
    ]
    with pytest.raises(start.CannotStart, match="GANTRY_PORT is 'http'"):
        start.command_for("api", [], {"GANTRY_PORT": "http"})
    assert _run("dance").returncode == 64


def test_a_workers_health(tmp_path: Path) -> None:
    """Catches a health that only proves a process, and one that blames a living worker."""
    environment = {"GANTRY_DATA_DIR": str(tmp_path), "GANTRY_NODE_NAME": "n1"}
    folder = tmp_path / "nodes" / "n1"
    assert "no worker has ever run" in start.health("worker", environment)
    (folder / "launcher").mkdir(parents=True)
    lock = folder / "worker.lock"
    lock.touch()
    assert "no worker holds" in start.health("worker", environment)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert start.health("worker", environment) == ""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        renewed = folder / "launcher" / "renewed"
        renewed.write_text(f"{boot} {now:.3f} 540 600\n")
        assert start.health("worker", environment) == ""
        renewed.write_text(f"{boot} {now - 31:.3f} 540 600\n")
        assert "no heartbeat" in start.health("worker", environment)
    assert _run("health", "worker", **environment).returncode == 1


@pytest.mark.parametrize(
    ("what", "name"), [("callbacks", "GANTRY_CALLBACKS_PULSE"), ("network", "GANTRY_NETWORK_GUARD")]
)
def test_health_by_a_sign_of_life(tmp_path: Path, what: str, name: str) -> None:
    """Catches a health that an old file, another boot's or none passes."""
    file = tmp_path / "pulse"
    environment = {name: str(file)}
    assert start.health(what, {}) == f"{name} is empty: name a file"
    assert "no sign of life" in start.health(what, environment)
    pulse.write(file, "word")
    assert start.health(what, environment) == ""
    assert pulse.read(file, 30) == ["word"]
    boot, at, word = file.read_text().split()
    file.write_text(f"{boot} {float(at) - 31:.3f} {word}\n")
    assert re.search(r"is 3\d s old", start.health(what, environment))
    with pytest.raises(pulse.Silent, match=r"is 3\d s old"):
        pulse.read(file, 30)
    file.write_text(f"another {at} {word}\n")
    assert start.health(what, environment) != ""
    with pytest.raises(pulse.Silent, match="another boot"):
        pulse.read(file, 30)


def test_an_api_that_does_not_answer_is_not_healthy() -> None:
    done = _run("health", "api", GANTRY_PORT="1")
    assert done.returncode == 1
    assert "127.0.0.1:1/healthz" in done.stderr


def test_who_guards_the_network_is_not_told_that_it_has_no_secrets() -> None:
    """Catches a check of the settings that calls a fault what docker-compose.yml means."""
    known = ("PATH", "DJANGO_SECRET_KEY", "GANTRY_NETWORK_GUARD")
    environment = {name: value for name, value in os.environ.items() if name in known}
    done = subprocess.run(
        [sys.executable, "manage.py", "network"],
        cwd=start.ROOT,
        env={**environment, "GANTRY_NETWORK_GUARD": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=limit(180),
    )
    assert "GANTRY_NETWORK_GUARD is empty" in done.stderr
    assert "GANTRY_SECRET_KEYS" not in done.stderr


def test_a_lost_broker_needs_no_advice_on_celerys_history() -> None:
    """Catches a text of Celery's that changed: a worker would log it at each lost connection."""
    program = (
        "import warnings, config.celery; from celery.worker.consumer import consumer as c;"
        "warnings.warn(c.CANCEL_TASKS_BY_DEFAULT, c.CPendingDeprecationWarning)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=start.ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=limit(180),
    )
    assert done.stderr == ""


# --- the API's port -----------------------------------------------------------------------------------------


def test_the_port_is_held_until_its_holder_ends_and_beside_the_api_of_the_same_account(
    tmp_path: Path,
) -> None:
    """Catches a port that anybody may bind while the API is stopped, a holder that takes the API's
    connections, and one that tells systemd that it holds before it does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(limit(30))
        holder = subprocess.Popen(
            [sys.executable, "-m", "config.start", "port"],
            cwd=start.ROOT,
            env={**os.environ, "GANTRY_PORT": str(port), "NOTIFY_SOCKET": str(tmp_path / "notify")},
        )
        try:
            assert systemd.recv(100) == b"READY=1"
            # A command of another account where there can be one: it may ask for whatever it likes.
            assert not _may_bind(port, 4242 if os.geteuid() == 0 else None, shared=os.geteuid() == 0)
            with socket.socket() as api:
                api.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                api.bind(("127.0.0.1", port))
                api.listen()
                for _ in range(20):
                    socket.create_connection(("127.0.0.1", port), limit(10)).close()
                    api.accept()[0].close()
        finally:
            holder.send_signal(signal.SIGTERM)
            holder.wait(limit(30))


def test_a_port_that_another_holds_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        told = _run("port", GANTRY_PORT=str(port))
    assert told.returncode == 78
    assert f"port {port} of 127.0.0.1 cannot be held for the API (Address already in use)" in told.stderr


def _may_bind(port: int, uid: int | None, *, shared: bool) -> bool:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if uid is not None:
                os.setuid(uid)
            with socket.socket() as tried:
                if shared:
                    tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                tried.bind(("127.0.0.1", port))
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
