"""What the runtimes of a node do alike: read a run's spec, know attempts by their names, mind the free space.

Must not import the database, Celery or a runtime.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from django.conf import settings

from workers.runtimes.base import PrepareFailed
from workers.vocabulary.leases import ClaimedRun
from workers.vocabulary.specs import DEFAULT_LOG_HEAD, DEFAULT_LOG_TAIL, NewerSpecError, Spec
from workers.vocabulary.states import Reason

#: Seconds until what needs a newer worker, or an operator's hand, is offered again.
UPGRADE_S: Final = 30.0

#: How much of a stream is stored, head and tail in bytes: names in a stored spec, and their defaults.
CAPS: Final = (("log_head", DEFAULT_LOG_HEAD), ("log_tail", DEFAULT_LOG_TAIL))
#: A file that is never cut.
_WHOLE: Final = 1 << 60

#: As ``f"{run}-{attempt}"`` writes it, both within what the database counts.
_ATTEMPT: Final = re.compile(r"([1-9][0-9]{0,17})-([1-9][0-9]{0,8})")

S = TypeVar("S", bound=Spec)


def read_spec(kind: type[S], run: ClaimedRun) -> S:
    """The spec that this runtime executes. Raises PrepareFailed."""
    try:
        return kind.from_json(run.spec)
    except NewerSpecError as error:
        # A newer worker can execute it: during an upgrade nobody's run fails for that.
        raise PrepareFailed(Reason.RUNTIME, str(error), ours=True, wait_s=UPGRADE_S) from error
    except (ValueError, TypeError) as error:
        raise PrepareFailed(Reason.CREATE, str(error)) from error


def spool_caps(spec: Mapping[str, Any]) -> tuple[int, int]:
    """How much of a stream is kept on the node, (head, tail) in bytes: all of it where it is an output.

    Not by way of a spec's class: what a newer worker started is adopted by an older one, too.
    """
    if any(item.get("stream") for item in spec.get("outputs") or ()):
        return _WHOLE, 0
    head, tail = (spec.get(key, default) for key, default in CAPS)
    return head, tail


def attempts_named(names: Iterable[str]) -> list[tuple[int, int]]:
    """(run, attempt) of each name "<run>-<attempt>", in order; other names are not ours."""
    found = [match.groups() for name in names if (match := _ATTEMPT.fullmatch(name))]
    return sorted((int(run_id), int(attempt)) for run_id, attempt in found)


def space_trouble(folder: Path) -> str:
    """Why this folder's disk is too full for new work; empty when it is not."""
    free = shutil.disk_usage(folder).free // (1024 * 1024)
    if free < settings.GANTRY_MIN_FREE_MB:
        return f"only {free} MiB free in {folder}, it needs {settings.GANTRY_MIN_FREE_MB}"
    return ""
