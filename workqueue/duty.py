"""What workers do for the workqueue every few seconds, and when somebody rings: settle, then hand out.

Duties of their own, so that a fault in one does not stop the others.
"""

from __future__ import annotations

from typing import Final

from django.conf import settings

from workers.vocabulary.duties import Duty
from workqueue.book import dispatching, flow, settling

SETTLING: Final = Duty(every_s=settings.GANTRY_TRANSFER_LOOK_S, look=settling.look, hears=True)
DISPATCHING: Final = Duty(every_s=settings.GANTRY_TRANSFER_LOOK_S, look=dispatching.look, hears=True)
LINKS: Final = Duty(every_s=settings.GANTRY_LINK_LOOK_S, look=flow.adapt)
