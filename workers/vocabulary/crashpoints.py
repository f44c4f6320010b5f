"""Named steps of the worker, and a way to die at one of them.

``step("runner.before_start")`` does nothing in production. The fault tests use it to prove that a worker may
die before and after each commit and each external effect. Must not import the engine.

  GANTRY_CRASH_AT    name of the step at which something happens; several with commas between them
  GANTRY_CRASH_ONCE  a file: made when it happens, and while it is there it does not happen again; of several
                     steps each has its own, with "." and its name added
  GANTRY_CRASH_HOW   kill (the default): the process kills itself; freeze: it stops itself as SIGSTOP does;
                     hold: the thread that came by waits until the file with ".go" added to its name exists
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

#: Every step, in the order of a run's life; the fault tests walk this list.
STEPS = (
    # the worker's start, its end, and what it does for the node
    "agent.before_register_commit",
    "agent.after_register_commit",
    "agent.before_adopt_commit",
    "agent.after_adopt_commit",
    "agent.after_heartbeat",
    "agent.after_renewal",
    "agent.after_promote",
    "agent.before_orphan_kill",
    "agent.after_orphan_kill",
    "agent.before_goodbye",
    "agent.after_goodbye",
    "reconciler.before_close",
    "reconciler.before_close_commit",
    "reconciler.after_close_commit",
    # one run
    "agent.before_claim",
    "agent.after_claim",
    "agent.before_publish",
    "agent.after_publish",
    "runner.before_prepare",
    "runner.after_prepare",
    "runner.before_start",
    "runner.after_start",
    "runner.before_started_commit",
    "runner.after_started_commit",
    "runner.before_log_commit",
    "runner.after_log_commit",
    "agent.before_stop",
    "agent.after_stop",
    "runner.before_stop",
    "runner.after_stop",
    "runner.after_exit",
    "runner.before_finish_commit",
    "runner.after_finish_commit",
    "runner.during_cleanup",
    "runner.after_cleanup",
)
#: Steps of a run whose files are fetched and stored, in the order of its life.
STAGING_STEPS = (
    "staging.before_input",
    "staging.in_input",
    "staging.after_input",
    "staging.before_output",
    "staging.in_output",
    "staging.before_commit",
    "staging.after_output",
    "staging.after_outputs",
)
#: Steps of a mover, in the order of an element's life: a COPY's, then those of the other acts.
TRANSFER_STEPS = (
    "transfer.before_part",
    "transfer.after_part",
    "transfer.in_content",
    "transfer.before_finish",
    "transfer.after_finish",
    "transfer.before_commit",
    "transfer.after_commit",
    "transfer.before_remove",
    "transfer.after_remove",
    "transfer.before_rename",
    "transfer.after_rename",
    "transfer.before_mkdir",
    "transfer.after_mkdir",
)
#: Steps of the process that serves the API.
API_STEPS = ("api.before_ring", "api.before_callback_ring")
#: Steps of the process that delivers callbacks, in the order of a delivery.
CALLBACK_STEPS = (
    "callbacks.before_claim",
    "callbacks.after_claim",
    "callbacks.before_send",
    "callbacks.after_send",
    "callbacks.before_record_commit",
    "callbacks.after_record_commit",
)

_AT = frozenset(filter(None, os.environ.get("GANTRY_CRASH_AT", "").split(",")))
_ONCE = os.environ.get("GANTRY_CRASH_ONCE", "")
_HOW = os.environ.get("GANTRY_CRASH_HOW", "kill")


def step(name: str) -> None:
    """Pass a named step; die here when a test asked for it."""
    if name in _AT:
        _happen(name)


def _happen(name: str) -> None:
    once = f"{_ONCE}.{name}" if len(_AT) > 1 else _ONCE
    if _ONCE:
        try:
            with Path(once).open("x") as mark:
                mark.write(name)
        except FileExistsError:
            return
    if _HOW == "hold":
        while not Path(f"{once}.go").exists():
            time.sleep(0.01)
        return
    if _HOW == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.1)  # the stop reaches this thread a moment later, perhaps
        return
    os.kill(os.getpid(), signal.SIGKILL)
