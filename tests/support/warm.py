"""Starts the project's programs from a process that has loaded their libraries already.

    python -m tests.support.warm <socket>

More than half of what a start costs goes into loading Django, Celery and the like, the same ones each time.
Here one process for each process of pytest loads them; for every start it forks, and the child does what a
fresh interpreter does from there on: its own session, environment, folder and output, then the program from
its first line, with its settings and all modules of Gantry. It loads none of those before. How the operating
system starts the programs is shown where a Cluster is not warm (acceptance), by `make up` and the deployment.

Imports nothing of pytest, and before the fork nothing that starts a thread or opens a connection.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

#: Libraries of nodes, deliverers and the API that need no settings to be loaded.
LIBRARIES: Final = (
    *("django.core.management", "django.core.serializers.json", "django.db.backends.postgresql.base"),
    *("django.db.migrations.executor", "django.db.migrations.writer", "django.core.handlers.wsgi"),
    *("django.test.client", "django.urls", "django.forms", "django.shortcuts", "django.views.i18n"),
    *("django.views.csrf", "django.middleware.csrf", "django.contrib.admin.utils"),
    *("django.contrib.messages.api", "django.contrib.postgres.fields", "django.contrib.postgres.functions"),
    *("django.contrib.postgres.search", "whitenoise.middleware", "environ", "drf_spectacular.types"),
    *("drf_spectacular.drainage", "uritemplate", "inflection", "jsonschema", "typing_extensions"),
    *("celery.apps.worker", "celery.app.amqp", "celery.app.control", "celery.app.events", "celery.app.log"),
    *("celery.backends.base", "celery.concurrency.thread", "celery.events.state", "celery.fixups.django"),
    *("celery.loaders.app", "celery.worker.consumer.delayed_delivery", "celery.worker.strategy"),
    *("billiard.pool", "kombu.transport.redis", "redis.asyncio", "granian.cli", "granian.server.mp"),
    *("psycopg2.extras", "structlog", "yaml", "prometheus_client", "cryptography.fernet"),
    *("cryptography.x509", "ctypes", "ijson", "docker", "requests", "httpcore", "httpx", "boto3"),
    *("swiftclient.client", "webdav4.http", "email.mime.text", "statistics"),
)
ROOT: Final = Path(__file__).resolve().parent.parent.parent
#: For each interpreter of a program that tests start.
AS_INSTALLED: Final = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT / "tests/support/as_installed")}
_MESSAGE: Final = 2**20


class Started(Protocol):
    """What is used of ``subprocess.Popen``."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Forked:
    """A program that was started here: as ``subprocess.Popen``. Its exit code is asked of its parent."""

    def __init__(self, parent: Warm, pid: int) -> None:
        self._parent = parent
        #: Held by who asks whether it has ended: until then its number is nobody else's.
        self._turn = threading.RLock()
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with self._turn:
            if self.returncode is None:
                self.returncode = self._parent.exit_code(self.pid)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended, for ``timeout`` seconds at most (then subprocess.TimeoutExpired)."""
        with self._turn:
            if (code := self.poll()) is not None:
                return code
            ended = os.pidfd_open(self.pid)
        try:
            select.select([ended], [], [], timeout)
        finally:
            os.close(ended)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        with self._turn:
            if self.poll() is None:
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Warm:
    """The process that has loaded the libraries, seen from the one that starts programs. For many threads."""

    def __init__(self, env: Mapping[str, str], cwd: Path) -> None:
        self._turn = threading.Lock()
        self._wire, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            for end in (self._wire, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE)
            #: Ends when this process does: the socket is then closed.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.warm", str(theirs.fileno())],
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def _ask(self, question: dict[str, Any], *files: int) -> Any:
        with self._turn:
            socket.send_fds(self._wire, [json.dumps(question).encode()], files)
            if not (answer := self._wire.recv(_MESSAGE)):
                raise RuntimeError("the process that starts programs has ended (tests.support.warm)")
            return json.loads(answer)

    def start(self, command: list[str], env: Mapping[str, str], cwd: Path, out: int) -> Forked:
        """``command`` begins with an interpreter, then a program's file or ``-m`` and a module's name."""
        order = {"command": command, "env": dict(env), "cwd": str(cwd)}
        return Forked(self, int(self._ask(order, out)))

    def exit_code(self, pid: int) -> int | None:
        """As ``subprocess.Popen.returncode``."""
        code: int | None = self._ask({"ended": pid})
        return code

    def close(self) -> None:
        """End it. What it started goes on."""
        self._wire.close()
        self.process.wait()


_here: list[Warm] = []


def _given_to_interpreters(env: Mapping[str, str]) -> dict[str, str]:
    """Variables that an interpreter, or the loader before it, reads once, when it starts."""
    return {
        name: value
        for name, value in env.items()
        if name.startswith(("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_"))
    }


def can_start(command: list[str], env: Mapping[str, str], cwd: Path) -> bool:
    """Is it this interpreter, as the process here was started, with a program of this tree?"""
    return (
        command[0] == sys.executable
        and cwd == ROOT
        and _given_to_interpreters(env) == _given_to_interpreters({**os.environ, **AS_INSTALLED})
    )


def here() -> Warm:
    """The one of this process."""
    if not _here:
        _here.append(Warm({**os.environ, **AS_INSTALLED}, ROOT))
        atexit.register(_here[0].close)
    return _here[0]


# --- in the process that forks --------------------------------------------------------------------------


def _next_order(wire: socket.socket) -> dict[str, Any]:
    """Answers questions; returns only in a child that has been forked, with what it shall run."""
    while True:
        message, files, _, _ = socket.recv_fds(wire, _MESSAGE, 1)
        if not message:
            sys.exit()
        question: dict[str, Any] = json.loads(message)
        if (pid := question.get("ended")) is not None:
            found, status = os.waitpid(pid, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if found else None
        elif (answer := os.fork()) == 0:
            os.setsid()
            for number in (1, 2):
                os.dup2(files[0], number)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            wire.detach()
            return question
        for file in files:
            os.close(file)
        wire.send(json.dumps(answer).encode())


def _become(order: dict[str, Any]) -> None:
    """Run the program as the main one of this process."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    _, *rest = order["command"]
    gc.enable()
    if rest[0] == "-m":
        sys.argv = rest[1:]
        sys.path[0] = order["cwd"]
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = rest
        sys.path[0] = str(Path(rest[0]).resolve().parent)
        runpy.run_path(rest[0], run_name="__main__")


if __name__ == "__main__":
    gc.disable()
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    _become(_next_order(socket.socket(fileno=int(sys.argv[1]))))
