"""Commands as processes of the node, started by the resident launcher (``workers.launcher``).

Names: control folder <node>/launcher/runs/<run>-<attempt>, scratch folder <scratch>/<run>-<attempt>. The
scratch root is a folder that every user may pass through but not list, since as root each run has a user of
its own. Must not import the database or Celery.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from django.conf import settings

from workers.launcher import control
from workers.logs.capture import SpoolReader
from workers.logs.redaction import Redactor
from workers.runtimes.base import Facts, Output, Places, PrepareFailed, Presence, Result
from workers.runtimes.folders import remove_tree, runs_root, scratch_root
from workers.runtimes.process.client import LauncherClient, LauncherError, LauncherUnavailableError
from workers.runtimes.process.records import StartRequest, fresh_environment
from workers.runtimes.rules import CAPS, attempts_named, read_spec, space_trouble, spool_caps
from workers.runtimes.staging import fetch_all
from workers.vocabulary.crashpoints import step
from workers.vocabulary.leases import ClaimedRun
from workers.vocabulary.specs import ProcessSpec
from workers.vocabulary.states import Reason

log = structlog.get_logger(__name__)

#: Open files that one run may have; generous.
_NOFILE: Final = 65_536


class ProcessRuntime:
    """The process runtime of one node; conforms to ``runtimes.base.Runtime``."""

    kind = "process"
    noun = "Command"

    def __init__(self, node_dir: Path, permit: Callable[[ClaimedRun], None] = lambda run: None) -> None:
        """``permit`` raises PrepareFailed for what may not run any more."""
        self._permit = permit
        self._control = node_dir / "launcher"
        self._control.mkdir(parents=True, exist_ok=True, mode=0o700)
        node_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self._scratch = scratch_root(node_dir)
        runs_root(self._control / "runs")
        self._client = LauncherClient(self._control)

    # --- names ---------------------------------------------------------------------------------------

    @staticmethod
    def _name(run_id: int, attempt: int) -> str:
        return f"{run_id}-{attempt}"

    def _name_of(self, run: ClaimedRun) -> str:
        return self._name(run.lease.run_id, run.lease.attempt)

    # --- the protocol --------------------------------------------------------------------------------

    def presence(self, run: ClaimedRun) -> Presence:
        return Presence(self._client.state(self._name_of(run)).state)

    def prepare(self, run: ClaimedRun, cancelled: Callable[[], bool], tell: Callable[[str], None]) -> None:
        spec = read_spec(ProcessSpec, run)
        self._permit(run)
        scratch = self._scratch / self._name_of(run)
        try:
            scratch.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise PrepareFailed(Reason.RUNTIME, f"scratch folder: {error}", ours=True) from error
        fetch_all(spec, run, self.places(run), cancelled, tell)

    def start(self, run: ClaimedRun, as_of: float) -> None:
        spec = read_spec(ProcessSpec, run)
        name = self._name_of(run)
        scratch = self._scratch / name
        head, tail = spool_caps(run.spec)
        request = StartRequest(
            name=name,
            argv=spec.argv,
            env=fresh_environment(scratch, {"LANG": "C.UTF-8", **spec.env}),
            scratch=scratch,
            nproc=_at_most(resource.RLIMIT_NPROC, settings.GANTRY_COMMAND_PROCESSES),
            nofile=_at_most(resource.RLIMIT_NOFILE, _NOFILE),
            data_bytes=spec.mem_mb * 1024 * 1024,
            head_bytes=head,
            tail_bytes=tail,
            fence=not run.never_lost,
            as_of=as_of,
        )
        try:
            self._client.start(request)
        except LauncherUnavailableError as error:
            # It may carry out later what it was asked now: from here on it must not, unless it already has.
            if self._client.forbid(name).state not in (control.RUNNING, control.EXITED):
                raise PrepareFailed(Reason.RUNTIME, f"launcher: {error}", ours=True) from error
        except (LauncherError, OSError) as error:
            raise PrepareFailed(Reason.RUNTIME, f"launcher: {error}", ours=True) from error

    def wait(self, run: ClaimedRun, timeout_s: float) -> Result | None:
        name = self._name_of(run)
        exit_record = self._client.wait(name, timeout_s)
        if exit_record is None:
            state = self._client.state(name)
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
            ran_s=exit_record.ran_s,
        )

    def stop(self, run: ClaimedRun, why: str, grace_s: float) -> None:
        self._client.stop(self._name_of(run), why, grace_s)

    def facts(self, run: ClaimedRun) -> Facts:
        return Facts()

    def output(self, run: ClaimedRun, shipped: dict[int, int]) -> Output:
        # Not by way of the spec: what a newer worker started is adopted by an older one, too.
        head, tail = (run.spec.get(key, default) for key, default in CAPS)
        folder = self.places(run).control
        redactor = Redactor(secret.encode() for secret in run.secrets)
        return SpoolReader(folder / "stdout", folder / "stderr", shipped, head, tail, redactor)

    def places(self, run: ClaimedRun) -> Places:
        name = self._name_of(run)
        folder = Path(control.run_dir(str(self._control), name))
        return Places(self._scratch / name, folder, {"stdout": folder / "stdout"})

    def cleanup(self, run_id: int, attempt: int) -> None:
        name = self._name(run_id, attempt)
        remove_tree(self._scratch / name)
        step("runner.during_cleanup")
        # The control folder last: while it is there, an orphan search finds what is left.
        remove_tree(Path(control.run_dir(str(self._control), name)))

    def attempts(self) -> list[tuple[int, int]]:
        names: set[str] = set()
        for folder in (self._scratch, self._control / "runs"):
            with contextlib.suppress(FileNotFoundError):
                names.update(entry.name for entry in folder.iterdir())
        return attempts_named(names)

    def kill_orphan(self, run_id: int, attempt: int) -> None:
        name = self._name(run_id, attempt)
        if self._client.state(name).state == control.RUNNING:
            self._client.stop(name, "orphan", 0.0)
            self._client.wait(name, 10.0)

    def renewed(self, as_of: float, kill_after_s: float, lost_after_s: float) -> None:
        try:
            self._client.renew(kill_after_s, lost_after_s, as_of)
        except (LauncherError, OSError) as error:
            log.warning("guard.not_told", error=str(error), meaning="it kills as if this node were lost")

    def trouble(self) -> str:
        if full := space_trouble(self._scratch):
            return full
        try:
            self._client.ensure()
        except (LauncherError, OSError) as error:
            return f"the launcher does not answer: {error}"
        return ""


def _at_most(limit: int, wanted: int) -> int:
    """The limit to set: what we want, or less where the machine allows less."""
    hard = resource.getrlimit(limit)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
