"""Named steps of the worker, and a way to die at one of them.

``step("runner.before_start")`` does nothing in production. With GANTRY_CRASH_AT set to that name the process
kills itself there, once per file named in GANTRY_CRASH_ONCE: the fault tests use it to prove that a worker
may die before and after each commit and each external effect. Must not import the engine.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

#: Every step, in the order of a run's life; the fault tests walk this list.
STEPS = (
    "agent.before_claim",
    "agent.after_claim",
    "agent.after_publish",
    "runner.before_prepare",
    "runner.after_prepare",
    "runner.before_start",
    "runner.after_start",
    "runner.before_started_commit",
    "runner.after_started_commit",
    "runner.after_exit",
    "runner.before_finish_commit",
    "runner.after_finish_commit",
    "runner.after_cleanup",
)

_CRASH_AT = os.environ.get("GANTRY_CRASH_AT", "")
_ONCE = os.environ.get("GANTRY_CRASH_ONCE", "")


def step(name: str) -> None:
    """Pass a named step; die here when a test asked for it."""
    if name != _CRASH_AT:
        return
    if _ONCE:
        mark = Path(_ONCE)
        if mark.exists():
            return
        mark.write_text(name)
    os.kill(os.getpid(), signal.SIGKILL)
