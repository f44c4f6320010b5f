"""What workers do for the queues every few seconds, and when somebody rings: settle, then admit.

Duties of their own, so that a fault in settling does not keep everybody from being admitted.
Providers are asked by threads of their own: one that is slow delays nothing but itself. Estimates are made by
one, too: they are not worth a late admission.
"""

from __future__ import annotations

from typing import Final

from django.conf import settings

from queues.admission.look import look_at_all
from queues.admission.settle import settle
from queues.estimates.service import tell_aside
from queues.providers.refresh import refresh_all
from workers.vocabulary.duties import Duty

#: Between two rounds of estimates of new entries, in s: they take up to a tenth of a second.
ESTIMATE_S: Final = 5.0


def look() -> dict[str, int]:
    """Admit what can be admitted."""
    return {"admitted": look_at_all()}


def ask() -> dict[str, int]:
    """Have the external providers asked."""
    refresh_all()
    return {}


def estimate() -> dict[str, int]:
    """Have new entries told how long they may wait."""
    tell_aside()
    return {}


SETTLING: Final = Duty(every_s=settings.GANTRY_QUEUE_LOOK_S, look=settle, hears=True)
DUTY: Final = Duty(every_s=settings.GANTRY_QUEUE_LOOK_S, look=look, hears=True)
ASKING: Final = Duty(every_s=settings.GANTRY_QUEUE_SNAPSHOT_S, look=ask)
ESTIMATING: Final = Duty(every_s=ESTIMATE_S, look=estimate)
