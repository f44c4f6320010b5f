"""Batches of file operations, each in a process of the mover under a launcher of its own.

The mover is code of ours and speaks for the worker: it is a process of the worker's own user, without
namespaces, so its launcher is another one than that of commands. Names: <node>/mover/runs/<run>-<attempt>
(control folder: the orders until the mover has read them, its report and its words), and
<node>/mover/scratch/<run>-<attempt> (what it spools). Must not import the database or Celery.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from django.conf import settings

from workers.launcher import control
from workers.logs.capture import SpoolReader
from workers.logs.redaction import Redactor
from workers.runtimes.base import Facts, Output, Places, PrepareFailed, Presence, Result
from workers.runtimes.folders import remove_tree, runs_root
from workers.runtimes.launched.attempts import NOFILE, Attempts, at_most
from workers.runtimes.launched.records import StartRequest, fresh_environment
from workers.runtimes.rules import CAPS, read_spec, space_trouble, spool_caps
from workers.runtimes.transfer.output import MoverOutput
from workers.vocabulary.crashpoints import step
from workers.vocabulary.leases import ClaimedRun
from workers.vocabulary.specs import MIB, TransferSpec
from workers.vocabulary.states import Reason
from workers.vocabulary.transfers.orders import Orders

#: The process that does it; the path of its orders follows.
MOVER: Final = (sys.executable, "-P", "-m", "workers.runtimes.transfer.mover")
#: Settings that trees ask for; those of a mover are the worker's.
SETTINGS: Final = (
    "GANTRY_LOCAL_SITES",
    "GANTRY_SITE_ALLOW_NETWORKS",
    "GANTRY_SWIFT_SEGMENT_MB",
    "GANTRY_URI_LIMIT_MB",
    "VERSION",
)
#: What it may map is more than what it uses: stacks of threads, buffers of libraries.
_MAPPED: Final = 8
_PROJECT: Final = Path(__file__).resolve().parents[3]
#: Of the worker's environment a mover gets these, beside what every run has.
_PASSED: Final = ("GANTRY_CRASH_AT", "GANTRY_CRASH_ONCE", "GANTRY_CRASH_HOW", "TZ")
_ORDERS: Final = "orders"


class TransferRuntime:
    """The transfer runtime of one node; conforms to ``runtimes.base.Runtime``."""

    kind = "transfer"
    noun = "Transfer"

    def __init__(self, node_dir: Path, mover: Sequence[str] = MOVER) -> None:
        self._attempts = Attempts(node_dir, "mover", "none")
        self._scratch = runs_root(self._attempts.control / "scratch")
        self._mover = mover

    def presence(self, run: ClaimedRun) -> Presence:
        return self._attempts.presence(run)

    def prepare(self, run: ClaimedRun, cancelled: Callable[[], bool], tell: Callable[[str], None]) -> None:
        read_spec(TransferSpec, run)
        if run.orders is None:
            raise PrepareFailed(Reason.CREATE, "a transfer without orders: its family's book gave none")
        if self.presence(run) not in (Presence.ABSENT, Presence.PREPARED):
            return
        told = {
            "orders": dict(run.orders),
            "settings": {name: _plain(getattr(settings, name)) for name in SETTINGS},
        }
        folder = self._attempts.folder_of(run)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            (self._scratch / folder.name).mkdir(mode=0o700, exist_ok=True)
            control.write_bytes(str(folder / _ORDERS), json.dumps(told).encode())
        except OSError as error:
            raise PrepareFailed(Reason.RUNTIME, f"orders of a transfer: {error}", ours=True) from error

    def start(self, run: ClaimedRun, as_of: float) -> None:
        spec = read_spec(TransferSpec, run)
        folder = self._attempts.folder_of(run)
        scratch = self._scratch / folder.name
        head, tail = spool_caps(run.spec)
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        own = {"LANG": "C.UTF-8", "PYTHONPATH": str(_PROJECT), **passed}
        self._attempts.start(
            StartRequest(
                name=folder.name,
                argv=[*self._mover, str(folder / _ORDERS)],
                env=fresh_environment(scratch, own),
                scratch=scratch,
                nofile=at_most(resource.RLIMIT_NOFILE, NOFILE),
                data_bytes=_MAPPED * spec.mem_mb * MIB,
                head_bytes=head,
                tail_bytes=tail,
                whole=("stdout",),
                fence=not run.never_lost,
                as_of=as_of,
            )
        )

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
        told = Orders.from_json(dict(run.orders)).secrets() if run.orders else []
        redactor = Redactor(secret.encode() for secret in (*run.secrets, *told))
        missing = lambda: self._attempts.missing(run)  # noqa: E731
        spool = SpoolReader(None, folder / "stderr", shipped, head, tail, redactor, missing)
        return MoverOutput(spool, folder / "stdout", run.reported)

    def places(self, run: ClaimedRun) -> Places:
        folder = self._attempts.folder_of(run)
        return Places(self._scratch / folder.name, folder, {})

    def cleanup(self, run_id: int, attempt: int) -> None:
        folder = self._attempts.folder(run_id, attempt)
        remove_tree(self._scratch / folder.name)
        step("runner.during_cleanup")
        # The control folder last: while it is there, an orphan search finds what is left.
        remove_tree(folder)

    def attempts(self) -> list[tuple[int, int]]:
        return self._attempts.found([self._scratch])

    def kill_orphan(self, run_id: int, attempt: int) -> None:
        self._attempts.kill_orphan(run_id, attempt)

    def renewed(self, as_of: float, kill_after_s: float, lost_after_s: float) -> None:
        self._attempts.renewed(as_of, kill_after_s, lost_after_s)

    def trouble(self) -> str:
        return space_trouble(self._scratch) or self._attempts.trouble()


def _plain(value: object) -> object:
    """A setting in JSON: paths are texts."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
