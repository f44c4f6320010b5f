"""The runtimes under test, each as the node that it works on: one class per kind, the same verbs for all.

A subject makes runtimes as a worker does, so that "the next worker" is another call of ``runtime``. No method
of a runtime needs the database, and none is there.
"""

from __future__ import annotations

import abc
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.conformance.nodes import claimed, make_runtime
from tests.support import remains
from tests.support.cluster import ROOT, kill_under, pids_under
from tests.support.engines import Engine
from tests.support.images import BUSYBOX
from tests.support.machine import kill
from tests.support.session import SESSION
from tests.support.waiting import limit, wait_until
from workers.launcher import control
from workers.runtimes.base import Runtime
from workers.runtimes.process.runtime import ProcessRuntime
from workers.vocabulary.leases import ClaimedRun
from workers.vocabulary.specs import (
    DEFAULT_LOG_HEAD,
    DEFAULT_LOG_TAIL,
    ContainerSpec,
    ExecSpec,
    ProcessSpec,
    Spec,
    TransferSpec,
)
from workers.vocabulary.states import Reason
from workers.vocabulary.transfers.orders import Orders
from workers.vocabulary.transfers.reach import Credentials, Reach

#: In the credentials of each transfer.
SECRET = "S3kr1t-of-a-site"
_numbers = itertools.count(int(time.time()) % 100_000 * 1000)


class Subject(abc.ABC):
    """A node with runtimes of one kind."""

    kind = ""
    #: Both streams come as one, in order.
    one_stream = False
    #: (lost, exit code) of work that is gone and whose result nobody wrote down.
    forgotten: tuple[bool, int | None] = (True, None)
    #: Where working folders are, on the node.
    scratch = "scratch"

    def __init__(self) -> None:
        self.folder = remains.also(SESSION, Path(tempfile.mkdtemp(prefix="gr-", dir="/tmp")))
        self.folder.chmod(0o711)
        self.url = ""
        self._made: list[Runtime] = []

    @property
    def node(self) -> Path:
        return self.folder / "node"

    def tells_oom(self, runtime: Runtime) -> bool | None:
        """Does somebody tell the runtime that memory ran out, or does the program just get no more? None:
        whichever comes first."""
        return False

    def runtime(self) -> Runtime:
        """Another runtime for this node, as the next worker makes it."""
        made = make_runtime(self.kind, self.node, self.url)
        self._made.append(made)
        made.renewed(control.boottime(), 600, 900)
        return made

    # --- runs ----------------------------------------------------------------------------------------

    @abc.abstractmethod
    def spec(self, script: str, *, argv: list[str] | None = None, mem_mb: int = 256, **more: Any) -> Spec:
        """A script for ``sh``, or the words of a command as they are."""

    def run(self, script: str = "true", **more: Any) -> ClaimedRun:
        """A claimed run that was never started; its id is new."""
        spec = self.spec(script, **more)
        return claimed(self.kind, next(_numbers), spec.to_json())

    def without_input(self) -> tuple[ClaimedRun, Reason]:
        """A run that lacks what it needs, and how that is called."""
        return self.run("true", uris=["http://127.0.0.1:9/nothing"]), Reason.INPUT

    def start_and_die(self, run: ClaimedRun) -> None:
        """A worker of its own prepares and starts the run, and is killed."""
        asked = {
            "kind": self.kind,
            "node": str(self.node),
            "engine": self.url,
            "run_id": run.lease.run_id,
            "spec": run.spec,
            "orders": run.orders,
        }
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.starter", json.dumps(asked)],
            cwd=ROOT,
            env={**os.environ, "GANTRY_ROLE": "worker", "DJANGO_SETTINGS_MODULE": "config.settings"},
            stdout=subprocess.PIPE,
        )
        assert worker.stdout is not None
        with worker.stdout:
            told = worker.stdout.readline()
        worker.send_signal(signal.SIGKILL)
        worker.wait(limit(60))
        assert told == b"started\n", told

    # --- what is there -------------------------------------------------------------------------------

    @abc.abstractmethod
    def forget(self, run: ClaimedRun) -> None:
        """What a crash of the machine's other half does: the work goes without leaving a result."""

    def left(self) -> list[str]:
        """Traces of runs on this node."""
        places = ("scratch", "launcher/runs", "containers", "execs", "mover/scratch", "mover/runs")
        return [str(path) for place in places for path in self.node.glob(f"{place}/*")]

    def written(self, run: ClaimedRun, name: str) -> str:
        """What a run has written to a file in its working folder."""
        attempt = f"{run.lease.run_id}-{run.lease.attempt}"
        (found,) = (self.node / self.scratch).glob(f"*{attempt}/**/{name}")
        return found.read_text()

    def put(self, run: ClaimedRun, name: str) -> None:
        """Make a file in the working folder of a run that has been started."""
        (place,) = (self.node / self.scratch).glob(f"*{run.lease.run_id}-{run.lease.attempt}")
        (place / name).touch()

    def close(self) -> None:
        for runtime in self._made:
            for run_id, attempt in runtime.attempts():
                runtime.kill_orphan(run_id, attempt)
                runtime.cleanup(run_id, attempt)
            close = getattr(runtime, "close", None)
            if close is not None:
                close()
        wait_until(lambda: not kill_under(self.folder), why="the node's processes are gone")
        shutil.rmtree(self.folder, ignore_errors=True)


class Processes(Subject):
    kind = "process"

    def spec(self, script: str, *, argv: list[str] | None = None, mem_mb: int = 256, **more: Any) -> Spec:
        return ProcessSpec(argv=argv or ["/bin/sh", "-c", script], cpu_m=100, mem_mb=mem_mb, **more)

    def tells_oom(self, runtime: Runtime) -> bool | None:
        assert isinstance(runtime, ProcessRuntime)
        return True if "cgroup" in runtime.bounds()["command_memory"] else None

    def forget(self, run: ClaimedRun) -> None:
        name = f"{run.lease.run_id}-{run.lease.attempt}"
        record = json.loads((self.node / "launcher" / "runs" / name / "started").read_text())
        os.kill(record["shim_pid"], signal.SIGKILL)


class Transfers(Subject):
    """A command in the mover's place: what it says are the mover's own words, which are one stream."""

    kind = "transfer"
    one_stream = True
    scratch = "mover/scratch"

    def spec(self, script: str, *, argv: list[str] | None = None, mem_mb: int = 256, **more: Any) -> Spec:
        kept: dict[str, Any] = {"log_head": DEFAULT_LOG_HEAD, "log_tail": DEFAULT_LOG_TAIL, **more}
        return TransferSpec(batch=1, cpu_m=100, mem_mb=mem_mb, **kept)

    def run(self, script: str = "true", *, report: str = "", **more: Any) -> ClaimedRun:
        """With a report that it leaves, and secrets that its words must not hold."""
        argv = more.get("argv") or ["/bin/sh", "-c", script]
        reach = Reach(protocol="LOCAL", credentials=Credentials(password=SECRET))
        orders = Orders(job=1, job_act="COPY", tag="t-1", host="h", source=reach).to_json()
        return replace(super().run(script, **more), orders={**orders, "argv": argv, "report": report})

    def without_input(self) -> tuple[ClaimedRun, Reason]:
        return replace(self.run(), orders=None), Reason.CREATE

    def forget(self, run: ClaimedRun) -> None:
        name = f"{run.lease.run_id}-{run.lease.attempt}"
        record = json.loads((self.node / "mover" / "runs" / name / "started").read_text())
        os.kill(record["shim_pid"], signal.SIGKILL)


class Containers(Subject):
    kind = "container"

    def tells_oom(self, runtime: Runtime) -> bool | None:
        return True

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.url = engine.url

    def spec(self, script: str, *, argv: list[str] | None = None, mem_mb: int = 256, **more: Any) -> Spec:
        given = {"image": BUSYBOX, "force_pull": False, "cpu_m": 500, **more}
        return ContainerSpec(args=argv or ["/bin/sh", "-c", script], mem_mb=mem_mb, **given)

    def forget(self, run: ClaimedRun) -> None:
        (found,) = self.containers(run)
        self.engine.client.api.remove_container(found["Id"], force=True)

    def containers(self, run: ClaimedRun) -> list[dict[str, Any]]:
        """The containers of one attempt: more than one would be one too many."""
        whose = {"gantry.run": str(run.lease.run_id), "gantry.attempt": str(run.lease.attempt)}
        return self.engine.containers(**whose)

    def put(self, run: ClaimedRun, name: str) -> None:
        (found,), api = self.containers(run), self.engine.client.api
        api.exec_start(api.exec_create(found["Id"], ["touch", name])["Id"])

    def left(self) -> list[str]:
        return [*super().left(), *(found["Name"] for found in self.engine.containers())]


class Execs(Subject):
    """Commands in a container that somebody else has made."""

    kind = "exec"
    one_stream = True
    #: Whoever listens and the command are killed: its engine knows how it ended.
    forgotten = (False, 137)
    #: How the container is made; variants are told apart by it.
    image = BUSYBOX
    options: ClassVar[dict[str, Any]] = {}
    command: ClassVar[list[str]] = ["sleep", "100000"]

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.url = engine.url
        api = engine.client.api
        made = api.create_container(
            self.image,
            self.command,
            host_config=api.create_host_config(mem_limit="96m", init=True, **self.options),
            stop_signal="SIGKILL",
        )
        self.container = str(made["Id"])
        api.start(self.container)

    def spec(self, script: str, *, argv: list[str] | None = None, mem_mb: int = 256, **more: Any) -> Spec:
        given: dict[str, Any] = {"container": self.container, "selectors": ["all"], **more}
        return ExecSpec(argv=argv or ["/bin/sh", "-c", script], **given)

    def without_input(self) -> tuple[ClaimedRun, Reason]:
        return self.run("true", container="nothing-of-this-name"), Reason.CREATE

    def inside(self, *argv: str) -> str:
        """What a command of the test's own says in the container."""
        api = self.engine.client.api
        return str(api.exec_start(api.exec_create(self.container, list(argv))["Id"]).decode())

    def forget(self, run: ClaimedRun) -> None:
        kill(*pids_under(self.node / "listener"))
        for pid in self.engine.pids(self.container):
            # One may have ended because another was killed.
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if b"sleep\x00100000" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    def written(self, run: ClaimedRun, name: str) -> str:
        return self.inside("cat", name)

    def put(self, run: ClaimedRun, name: str) -> None:
        self.inside("touch", name)

    def left(self) -> list[str]:
        files = self.inside("sh", "-c", "ls -d /tmp/.[!.]* /dev/shm/.[!.]* /var/tmp/.[!.]* 2>/dev/null")
        busy = []
        for pid in self.engine.pids(self.container):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                if b"GANTRY_EXEC" in Path(f"/proc/{pid}/environ").read_bytes():
                    busy.append(str(pid))
        return [*super().left(), *files.split(), *busy]


@pytest.fixture(params=["process", "transfer", "container", "exec"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Each runtime in turn."""
    if request.param == "process":
        made: Subject = Processes()
    elif request.param == "transfer":
        made = Transfers()
    elif request.param == "container":
        made = Containers(request.getfixturevalue("engine"))
    else:
        made = Execs(request.getfixturevalue("engine"))
    try:
        yield made
    finally:
        made.close()
