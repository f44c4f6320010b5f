"""Whose fault is it that a container could not be started? Pure.

The engine gives a status and words; the words are the runtime's and tell more. What the user's specification
causes is theirs; what the machine lacks at this moment is ours, and the run is offered again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from workers.runtimes.base import PrepareFailed
from workers.runtimes.engine.client import EngineRefused
from workers.runtimes.engine.networks import NETWORK
from workers.vocabulary.states import Reason

#: What another moment, or another node, may mend.
_OURS: Final = re.compile(
    r"port is already allocated|address already in use|no space left|cannot allocate memory"
    r"|resource temporarily unavailable|too many open files|driver failed programming"
    r"|context deadline exceeded|context canceled|connection refused|containerd|i/o timeout"
    r"|device or resource busy|cgroup",
    re.IGNORECASE,
)
#: What only a change of the specification can mend, whatever else the words say.
_THEIRS: Final = re.compile(
    r"executable file not found|no such file or directory|permission denied|exec format error"
    r"|not a directory|is a directory|unable to find user|unable to find group|no matching entries in passwd"
    r"|invalid (argument|mount|container|capability)|unknown capability|network [^ ]+ not found"
    r"|no command specified|bind source path does not exist|sysctl",
    re.IGNORECASE,
)

#: The worker's own network was taken away, or another worker made it at the same moment.
_NETWORK: Final = re.compile(rf"network {NETWORK} (not found|is ambiguous)")

#: The engine died in the middle of an earlier start: it may have run, so it counts as a try.
_HALF_DONE: Final = re.compile(
    r"task [0-9a-f]{64}: already exists|\bid already in use\b|given id already exists"
)


def refused_start(error: EngineRefused, state: Mapping[str, Any]) -> PrepareFailed:
    """The failure of a start that the engine refused; ``state`` is what it says of the container since."""
    words = str(state.get("Error") or error.message)
    if _HALF_DONE.search(words):
        return PrepareFailed(
            Reason.RUNTIME, f"Container's start was interrupted by its engine's end: {words}"
        )
    if _NETWORK.search(words):
        return PrepareFailed(Reason.RUNTIME, f"Container could not be started: {words}", ours=True)
    theirs = _THEIRS.search(words) is not None
    if not theirs and (error.status >= 500 or error.status == 409) and _OURS.search(words):
        return PrepareFailed(Reason.RUNTIME, f"Container could not be started: {words}", ours=True)
    if theirs or error.status < 500 or state.get("ExitCode") in (126, 127, 128):
        return PrepareFailed(Reason.CREATE, f"Container could not be started: {words}")
    return PrepareFailed(Reason.RUNTIME, f"Container could not be started: {words}", ours=True)
