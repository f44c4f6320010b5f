"""What a runtime does before the start of a run that brings files: all of them, or why not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from workers.runtimes.base import Places, PrepareFailed
from workers.runtimes.staging.folder import make_room
from workers.runtimes.staging.inputs import NotThereYet, fetch_inputs
from workers.runtimes.staging.plan import Plan
from workers.runtimes.staging.tries import Interrupted, limited
from workers.vocabulary.errors import EngineError
from workers.vocabulary.leases import ClaimedRun
from workers.vocabulary.specs import StagedSpec
from workers.vocabulary.states import Reason

#: Seconds until a missing input is looked for again, by the attempt: each look is an attempt of its own.
_LOOK_S: Final = 2.0
_GROWTH: Final = 1.5
_LOOK_MOST_S: Final = 120.0


def fetch_all(
    spec: StagedSpec,
    run: ClaimedRun,
    places: Places,
    cancelled: Callable[[], bool],
    tell: Callable[[str], None],
) -> None:
    """Fetch uris and inputs into the working folder, make the folders of its outputs; returns early once
    ``cancelled()``. Raises PrepareFailed."""

    def tick() -> None:
        if cancelled():
            raise Interrupted

    if not (spec.uris or spec.inputs or spec.outputs):
        return
    try:
        places.control.mkdir(mode=0o700, exist_ok=True)
        with suppress(Interrupted):
            plan = Plan.of(run.spec, run.secrets)
            fetch_inputs(plan, places, limited(tick, "fetching its inputs"), tell)
            for item in plan.outputs:
                if item.path:
                    make_room(places.work, item.path)
    except NotThereYet as waiting:
        raise PrepareFailed(
            Reason.INPUT, str(waiting), ours=True, wait_s=_look_again_in(run.lease.attempt)
        ) from waiting
    except EngineError as error:
        raise PrepareFailed(Reason.INPUT, error.message) from error
    except OSError as error:
        raise PrepareFailed(Reason.RUNTIME, f"scratch folder: {error}", ours=True) from error


def _look_again_in(attempt: int) -> float:
    return float(min(_LOOK_MOST_S, _LOOK_S * _GROWTH ** min(attempt - 1, 20)))
