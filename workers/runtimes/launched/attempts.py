"""Attempts as processes under a launcher: what their runtimes do alike. Must not import the database."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import structlog

from workers.launcher import control
from workers.launcher.isolation import NAMESPACES, NONE
from workers.logs.capture import STDERR, STDOUT
from workers.runtimes.base import PrepareFailed, Presence, Result
from workers.runtimes.folders import runs_root
from workers.runtimes.launched.client import LauncherClient, LauncherError, LauncherUnavailableError
from workers.runtimes.launched.pulse import Pulse
from workers.runtimes.launched.records import Exit, Hello, StartRequest
from workers.runtimes.rules import attempts_named
from workers.vocabulary.leases import ClaimedRun
from workers.vocabulary.states import Reason

log = structlog.get_logger(__name__)

#: Open files that one run may have; generous.
NOFILE: Final = 65_536


class Attempts:
    """The attempts of one control folder, named ``<run>-<attempt>``: the first half of a runtime."""

    def __init__(
        self, node_dir: Path, name: str, isolation: Literal["on", "none"] = "on", cgroup: str = "auto"
    ) -> None:
        self.control = node_dir / name
        self.control.mkdir(parents=True, exist_ok=True, mode=0o700)
        node_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        runs_root(self.control / "runs")
        self.client = LauncherClient(self.control, isolation=isolation, cgroup=cgroup)
        #: What has been said of this node: nothing is started with less. "" before it was asked.
        self.isolation = ""
        self.pulse = Pulse(self.client, self._lessened)

    @staticmethod
    def name(run_id: int, attempt: int) -> str:
        return f"{run_id}-{attempt}"

    def name_of(self, run: ClaimedRun) -> str:
        return self.name(run.lease.run_id, run.lease.attempt)

    def folder(self, run_id: int, attempt: int) -> Path:
        """The attempt's control folder."""
        return Path(control.run_dir(str(self.control), self.name(run_id, attempt)))

    def folder_of(self, run: ClaimedRun) -> Path:
        return self.folder(run.lease.run_id, run.lease.attempt)

    def presence(self, run: ClaimedRun) -> Presence:
        return Presence(self.client.state(self.name_of(run)).state)

    def start(self, request: StartRequest) -> None:
        """Start it, or adopt what was started under its name. Raises PrepareFailed."""
        if silent := self.pulse.silence():
            raise PrepareFailed(Reason.RUNTIME, silent, ours=True)
        try:
            self.client.start(request)
        except LauncherUnavailableError as error:
            # It may carry out later what it was asked now: from here on it must not, unless it already has.
            if self.client.forbid(request.name).state not in (control.RUNNING, control.EXITED):
                raise PrepareFailed(Reason.RUNTIME, f"launcher: {error}", ours=True) from error
        except (LauncherError, OSError) as error:
            raise PrepareFailed(Reason.RUNTIME, f"launcher: {error}", ours=True) from error

    def wait(self, run: ClaimedRun, timeout_s: float) -> Result | None:
        name = self.name_of(run)
        exit_record = self.client.wait(name, timeout_s)
        if exit_record is None:
            state = self.client.state(name)
            if state.state not in (control.LOST, control.ABSENT, control.PREPARED):
                return None
            if state.exit is None:
                return Result(lost=True)
            exit_record = state.exit
        return Result(
            code=exit_record.code,
            signal=exit_record.signal,
            killed=exit_record.killed,
            error=exit_record.error,
            oom=exit_record.oom,
            told=exit_record.told,
            ran_s=exit_record.ran_s,
        )

    def missing(self, run: ClaimedRun) -> dict[int, str]:
        """What its end says of output that found no space, as ``SpoolReader`` asks for it."""
        end = Exit.read(control.read_record(str(self.folder_of(run) / "exit")))
        streams = {STDOUT: end.stdout, STDERR: end.stderr} if end else {}
        return {number: stream.untold for number, stream in streams.items() if stream.missing}

    def stop(self, run: ClaimedRun, why: str, grace_s: float) -> None:
        self.client.stop(self.name_of(run), why, grace_s)

    def found(self, folders: Iterable[Path]) -> list[tuple[int, int]]:
        """(run, attempt) of everything in these folders, and of the control folders."""
        names: set[str] = set()
        for folder in (*folders, self.control / "runs"):
            with contextlib.suppress(FileNotFoundError):
                names.update(entry.name for entry in folder.iterdir())
        return attempts_named(names)

    def kill_orphan(self, run_id: int, attempt: int) -> None:
        name = self.name(run_id, attempt)
        if self.client.state(name).state == control.RUNNING:
            self.client.stop(name, "orphan", 0.0)
            self.client.wait(name, 10.0)

    def renewed(self, as_of: float, kill_after_s: float, lost_after_s: float) -> None:
        self.pulse.renew(kill_after_s, lost_after_s, as_of)

    def isolates(self) -> str:
        """namespaces, uids or none: how the launcher separates what it starts; none while it does not say."""
        try:
            hello = self.client.ensure()
        except (LauncherError, OSError) as error:
            log.warning("launcher.away", error=str(error), meaning="the node offers no isolation of commands")
            self.isolation = NONE
        else:
            self.isolation = hello.isolation
        return self.isolation

    def bounds(self) -> dict[str, str]:
        """How the launcher bounds memory and CPU: {"command_memory": ..., "command_cpu": ...}, in words."""
        try:
            bounds = self.client.ensure().bounds
        except (LauncherError, OSError):
            return {}  # `trouble` tells
        why = f": {bounds['reason']}" if bounds["reason"] else ""
        memory, cpu = bounds["memory"], bounds["cpu"]
        return {
            "command_memory": f"cgroup v{memory}" if memory else f"watched{why}",
            "command_cpu": f"share, cgroup v{cpu}" if cpu else f"nice{why}",
        }

    def trouble(self) -> str:
        """Why nothing can be started now, in words; empty when it can."""
        return self.pulse.trouble()

    def _lessened(self, hello: Hello) -> str:
        """What a launcher that answers cannot do any more."""
        if self.isolation == NAMESPACES != hello.isolation:
            return (
                f"the launcher has no namespaces for commands any more ({hello.isolation_reason}): start the "
                "worker again"
            )
        return ""


def at_most(limit: int, wanted: int) -> int:
    """The limit to set: what we want, or less where the machine allows less."""
    hard = resource.getrlimit(limit)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
