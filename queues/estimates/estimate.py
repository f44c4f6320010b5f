"""An entry's estimate: by the decision run forward, else by past waits, else unknown. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

from queues.admission.asked import Asked
from queues.admission.decide import Level, decide
from queues.estimates import calibration
from queues.estimates.forward import DEADLINE_S, Scene, forecast
from queues.estimates.runtimes import Ended, narrowest
from queues.needs import total

#: No bound is shorter: a look comes within so many seconds.
LEAST_S: Final = 2.0

FORWARD: Final = "forward"  # the decision, run forward until it is admitted
IN_PART: Final = "forward_in_part"  # run forward for the first ones ahead, extrapolated over the rest
PAST_WAITS: Final = "past_waits"  # a binomial bound on waits of its class: 0.9 quantile at 95 % confidence


@dataclass(frozen=True)
class Estimate:
    """In s from now. ``raw``: the bound before calibration, 0 where there is none of that kind."""

    p50: float
    p90: float
    raw: float
    method: str
    samples: int

    def shown(self) -> dict[str, Any]:
        """As page 50 has it."""
        return {
            "p50_s": round(self.p50, 1),
            "p90_s": round(self.p90, 1),
            "method": self.method,
            "samples": self.samples,
        }


@dataclass(frozen=True)
class Unknown:
    """Why there is none."""

    because: str

    def shown(self) -> dict[str, Any]:
        return {"unknown": self.because}


def estimate(
    scene: Scene,
    past: Sequence[Ended],
    tilt: float,
    waited: float = 0.0,
    *,
    deadline_s: float = DEADLINE_S,
    pause_s: float = 0.0,
) -> Estimate | Unknown:
    """How long the entry asked about will still wait; it has waited for ``waited`` s.

    ``past``: the newest first. ``tilt``: the logarithm of the calibration's factor.
    ``pause_s``: see ``forecast``.
    """
    never = _never(scene.asked)
    if never:
        return Unknown(f"because {never}")
    found = forecast(scene, deadline_s=deadline_s, pause_s=pause_s)
    if found is not None and (raw := quantile(found.waits, calibration.LEVEL)) < math.inf:
        p50 = quantile(found.waits, 0.5)
        p90 = max(p50 + calibration.stretched(raw, p50, tilt), LEAST_S)
        method = IN_PART if found.extrapolated else FORWARD
        return Estimate(p50, p90, max(raw, LEAST_S), method, scene.runtimes.count)
    if found is not None:
        return Unknown("because what runs, once it has ended, does not suffice for it or for one before it")
    cls = scene.asked.cls
    waits = [each.waited for each in narrowest(past, cls.owner, cls.need, calibration.FEWEST)]
    whole = calibration.bound(waits)
    if whole is None:
        return Unknown(
            f"because too few entries of this type have ended to tell from: {len(past)}; "
            f"{calibration.FEWEST} do, or a duration in the data of all that run or are before it"
        )
    if whole <= waited:
        return Unknown(
            "because it has waited longer than such entries did, and too few have ended to say more"
        )
    p50 = max(0.0, min(median(waits), whole) - waited)
    return Estimate(p50, max(whole - waited, LEAST_S), 0.0, PAST_WAITS, len(waits))


def _never(asked: Asked) -> str:
    """Why time alone does not admit it; "" = it may."""
    seen, cls = asked.snapshot, asked.cls
    if seen.trouble:
        return f"what there is cannot be told now: {seen.trouble}"
    verdict = decide(replace(seen, classes=(cls,), reservation=None)).verdicts.get(cls.id)
    if verdict is None:
        return ""
    if verdict.level in (Level.MISCONFIGURED, Level.NEVER_FITS):
        return "nothing that there is could ever hold it"
    if verdict.doubtful:
        return "it is not known whether what there is could ever hold it: the search for a place has a limit"
    quota = seen.quotas.get((cls.queue, cls.owner), {}).get(verdict.resource, math.inf)
    if verdict.level == Level.OVER_QUOTA and total(cls.need).get(verdict.resource, 0) > quota:
        return f"it needs more {verdict.resource} than its owner may hold"
    return ""


def quantile(ordered: Sequence[float], level: float) -> float:
    """Of a few values in order, between two of them by their distance."""
    place = min(max(level * len(ordered) - 0.5, 0.0), len(ordered) - 1.0)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    if ordered[high] == math.inf:
        return math.inf if place > low or ordered[low] == math.inf else ordered[low]
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
