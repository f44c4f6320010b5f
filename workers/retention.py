"""Everything ends: deletes what is older than it is kept, in bounded batches.

Safe to run in several processes at once (SKIP LOCKED) and to interrupt at any time. Called by the reconciler
and by `manage.py prune`. Must not import services, claiming, agents or runtimes.
"""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.db import connection, models, transaction
from django.db.backends.utils import CursorWrapper

from workers.models import Run

#: Contract, "Idempotency": a key is remembered for 24 hours.
IDEMPOTENCY_H: Final = 24
#: An answered question is of no use to anybody after this; one that nobody answered neither.
REQUEST_MIN: Final = 60
#: A shape without any run is kept this long, so that submitting the same thing again finds it.
SHAPE_H: Final = 24
#: Chunks of logs deleted per run to prune: about what one transaction should move.
_CHUNKS_PER_RUN: Final = 20
