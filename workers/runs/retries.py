"""When is a failed attempt tried again, and after how long? One rule per class of failure. Pure.

| class    | reasons                                          | waits                                    |
| -------- | ------------------------------------------------ | ---------------------------------------- |
| the work | exit_code, timeout, oom                          | base, doubled with every attempt         |
| remote   | input, output                                    | five times that: servers need time       |
| ours     | runtime, lost, unreachable, dropped, node_gone   | base: another node may take it at once   |
| final    | create, image, rejected, operator, expired       | not tried again                          |

Base and cap are GANTRY_RETRY_BASE_S and GANTRY_RETRY_CAP_S; a tenth of jitter keeps a herd apart.
"""

from __future__ import annotations

import random
from typing import Final

from django.conf import settings

from workers.vocabulary.states import Reason

#: Another try makes no sense: the specification itself is at fault, or somebody ended it.
FINAL_REASONS: Final = frozenset(
    {Reason.CREATE, Reason.IMAGE, Reason.REJECTED, Reason.OPERATOR, Reason.EXPIRED}
)
_REMOTE: Final = frozenset({Reason.INPUT, Reason.OUTPUT})
#: What happened to a run, not in it.
LOSSES: Final = frozenset({Reason.RUNTIME, Reason.LOST, Reason.UNREACHABLE, Reason.DROPPED, Reason.NODE_GONE})


def may_retry(reason: str, *, losses_only: bool = False) -> bool:
    """Could another try mend this failure, and was one asked for? ``losses_only``: not of the run's own."""
    return reason in LOSSES if losses_only else reason not in FINAL_REASONS


def backoff_s(reason: str, attempt: int) -> float:
    """Seconds until the try after ``attempt`` (1 for the first), which failed for ``reason``."""
    base = float(settings.GANTRY_RETRY_BASE_S)
    if reason not in LOSSES:
        base *= (5 if reason in _REMOTE else 1) * 2 ** min(max(attempt - 1, 0), 16)
    return min(float(settings.GANTRY_RETRY_CAP_S), base) * random.uniform(0.9, 1.1)  # noqa: S311  jitter
