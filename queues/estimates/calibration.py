"""How bounds are held to what they promise: of nine in ten entries the wait is not longer. Pure.

What the forecast's bound has above its median is multiplied by a factor. After each outcome the factor's
logarithm is moved: up by 0.9 steps when the bound was missed, down by 0.1 when it held. So it stands still
only where one in ten misses, whatever the forecast gets wrong, and it follows a change within some tens of
outcomes (adaptive conformal inference: Gibbs and Candes 2021). A bound is missed as soon as the wait is
longer: nobody waits for the admission to learn it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

#: What is promised.
LEVEL: Final = 0.9
#: Outcomes that what is published is about, the newest.
WINDOW: Final = 500
#: A larger step follows changes faster and makes bounds less steady.
_STEP: Final = 0.06
#: The least that a bound has above the median, as a share of that.
_THIN: Final = 0.03
#: The factor is between one eighth and eight.
_MOST: Final = math.log(8.0)
#: Confidence of a bound from past waits, and the fewest of them that give one.
_CONFIDENCE: Final = 0.95
FEWEST: Final = 29


@dataclass(frozen=True)
class Outcome:
    """What was told at submission, and how long it was in the end, in s."""

    p50: float
    p90: float
    waited: float
    method: str = ""


def steered(tilt: float, missed: Iterable[bool]) -> float:
    """The logarithm of the factor after these outcomes, in the order in which they became known."""
    for each in missed:
        tilt += _STEP * (LEVEL if each else LEVEL - 1.0)
        tilt = max(-_MOST, min(_MOST, tilt))
    return tilt


def stretched(raw: float, p50: float, tilt: float) -> float:
    """How far above its median a forecast's bound is put; a little where all its futures agree."""
    return max(raw - p50, _THIN * p50) * math.exp(tilt)


def bound(waits: Sequence[float]) -> float | None:
    """A wait that is not below the 0.9 quantile, at 95 % confidence, whatever its distribution.

    The smallest order statistic of which that holds, by the binomial distribution; None: there are too few.
    """
    below, count = 0.0, len(waits)
    for rank in range(count):
        # So many of them are below the quantile with this probability.
        below += math.comb(count, rank) * LEVEL**rank * (1.0 - LEVEL) ** (count - rank)
        if below >= _CONFIDENCE:
            return sorted(waits)[rank]
    return None


def accuracy(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """{coverage_p90, median_error, samples}: the share whose bound held; |wait - p50| / wait, the median."""
    if not outcomes:
        return {"coverage_p90": None, "median_error": None, "samples": 0}
    held = sum(each.waited <= each.p90 for each in outcomes)
    error = median(abs(each.waited - each.p50) / max(each.waited, 1.0) for each in outcomes)
    return {
        "coverage_p90": round(held / len(outcomes), 3),
        "median_error": round(error, 3),
        "samples": len(outcomes),
    }
