"""Commands as processes of the node, started by the resident launcher (``workers.launcher``).

Names: control folder <node>/launcher/runs/<run>-<attempt>, scratch folder <scratch>/<run>-<attempt>. The
scratch root is a folder that every user may pass through but not list, since as root each run has a user of
its own. Must not import the database or Celery.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from django.conf import settings

from workers.logs.capture import NAMES, SpoolReader
from workers.logs.redaction import Redactor
from workers.runtimes.base import Facts, Output, Places, PrepareFailed, Presence, Result
from workers.runtimes.folders import remove_tree, scratch_root
from workers.runtimes.launched.attempts import NOFILE, Attempts, at_most
from workers.runtimes.launched.records import StartRequest, fresh_environment
from workers.runtimes.rules import CAPS, read_spec, space_trouble, spool_caps
from workers.runtimes.staging import fetch_all
from workers.vocabulary.crashpoints import step
from workers.vocabulary.leases import ClaimedRun
from workers.vocabulary.specs import MIB, ProcessSpec
from workers.vocabulary.states import Reason

#: Of its disk a working folder may take so much, unless GANTRY_COMMAND_DISK_MB says otherwise: a quarter.
_SHARE_OF_DISK: Final = 4


class ProcessRuntime:
    """The process runtime of one node; conforms to ``runtimes.base.Runtime``."""

    kind = "process"
    noun = "Command"

    def __init__(self, node_dir: Path, permit: Callable[[ClaimedRun], None] = lambda run: None) -> None:
        """``permit`` raises PrepareFailed for what may not run any more."""
        self._permit = permit
        self._attempts = Attempts(node_dir, "launcher", cgroup=settings.GANTRY_COMMAND_CGROUP)
        self._scratch = scratch_root(node_dir)

    def isolates(self) -> str:
        """How commands are separated here: namespaces, uids or none (``workers.launcher.isolation``)."""
        return self._attempts.isolates()

    def presence(self, run: ClaimedRun) -> Presence:
        return self._attempts.presence(run)

    def prepare(self, run: ClaimedRun, cancelled: Callable[[], bool], tell: Callable[[str], None]) -> None:
        spec = read_spec(ProcessSpec, run)
        self._permit(run)
        scratch = self._scratch / self._attempts.name_of(run)
        try:
            scratch.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise PrepareFailed(Reason.RUNTIME, f"scratch folder: {error}", ours=True) from error
        fetch_all(spec, run, self.places(run), cancelled, tell)

    def start(self, run: ClaimedRun, as_of: float) -> None:
        spec = read_spec(ProcessSpec, run)
        name = self._attempts.name_of(run)
        scratch = self._scratch / name
        head, tail = spool_caps(run.spec)
        request = StartRequest(
            name=name,
            argv=spec.argv,
            env=fresh_environment(scratch, {"LANG": "C.UTF-8", **spec.env}),
            scratch=scratch,
            nproc=at_most(resource.RLIMIT_NPROC, settings.GANTRY_COMMAND_PROCESSES),
            nofile=at_most(resource.RLIMIT_NOFILE, NOFILE),
            data_bytes=spec.mem_mb * MIB,
            memory_bytes=spec.mem_mb * MIB,
            disk_bytes=self._disk_bytes(),
            cpu_m=spec.cpu_m,
            head_bytes=head,
            tail_bytes=tail,
            fence=not run.never_lost,
            as_of=as_of,
            isolation=self._attempts.isolation,
        )
        self._attempts.start(request)

    def _disk_bytes(self) -> int:
        limit: int = settings.GANTRY_COMMAND_DISK_MB * MIB
        return limit or shutil.disk_usage(self._scratch).total // _SHARE_OF_DISK

    def bounds(self) -> dict[str, str]:
        """How commands are bounded on this node, in words: what holds their memory, what their CPU."""
        return self._attempts.bounds()

    def wait(self, run: ClaimedRun, timeout_s: float) -> Result | None:
        return self._attempts.wait(run, timeout_s)

    def stop(self, run: ClaimedRun, why: str, grace_s: float) -> None:
        self._attempts.stop(run, why, grace_s)

    def facts(self, run: ClaimedRun) -> Facts:
        return Facts()

    def output(self, run: ClaimedRun, shipped: dict[int, int]) -> Output:
        # Not by way of the spec: what a newer worker started is adopted by an older one, too.
        head, tail = (run.spec.get(key, default) for key, default in CAPS)
        folder = self._attempts.folder_of(run)
        redactor = Redactor(secret.encode() for secret in run.secrets)
        files = (folder / "stdout", folder / "stderr")
        return SpoolReader(*files, shipped, head, tail, redactor, lambda: self._attempts.missing(run))

    def places(self, run: ClaimedRun) -> Places:
        folder = self._attempts.folder_of(run)
        holed = [NAMES[stream] for stream in self._attempts.missing(run)]
        scratch = self._scratch / self._attempts.name_of(run)
        return Places(scratch, folder, {"stdout": folder / "stdout"}, holed)

    def cleanup(self, run_id: int, attempt: int) -> None:
        remove_tree(self._scratch / self._attempts.name(run_id, attempt))
        step("runner.during_cleanup")
        # The control folder last: while it is there, an orphan search finds what is left.
        remove_tree(self._attempts.folder(run_id, attempt))

    def attempts(self) -> list[tuple[int, int]]:
        return self._attempts.found([self._scratch])

    def kill_orphan(self, run_id: int, attempt: int) -> None:
        self._attempts.kill_orphan(run_id, attempt)

    def renewed(self, as_of: float, kill_after_s: float, lost_after_s: float) -> None:
        self._attempts.renewed(as_of, kill_after_s, lost_after_s)

    def trouble(self) -> str:
        return space_trouble(self._scratch) or self._attempts.trouble()
