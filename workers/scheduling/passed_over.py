"""Runs that were passed over too long: a node is kept for the first of them until it fits.

Which runs that are is decided by ``placement``. The caller holds the node's row. Must not import claiming.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Final

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.backends.utils import CursorWrapper

from workers.scheduling.obstacles import NodeView

#: A node that is kept for a run must be one that could take it: not silent, stopped, draining or in trouble.
_TAKES_WORK: Final = """
    mode = 'ready' AND trouble = '' AND NOT detached AND heartbeat_at > now() - %s * interval '1 second'
"""


def reserved_elsewhere(cursor: CursorWrapper, node: NodeView, overdue: Collection[int]) -> frozenset[int]:
    """Those of these runs that another node is kept for."""
    if not overdue:
        return frozenset()
    cursor.execute(
        f"""SELECT reserved_for_id FROM workers_node
            WHERE reserved_for_id = ANY(%s) AND id <> %s AND {_TAKES_WORK}""",  # noqa: S608 a constant
        [list(overdue), node.id, settings.GANTRY_LEASE_S],
    )
    return frozenset(row[0] for row in cursor.fetchall())


def reserve(cursor: CursorWrapper, node: NodeView, run_id: int | None) -> None:
    """Keep the node for a run, unless another one that takes work is kept for it (the column is unique)."""
    if run_id is not None:
        cursor.execute(
            f"""UPDATE workers_node SET reserved_for_id = NULL WHERE id IN (
                    SELECT id FROM workers_node
                    WHERE reserved_for_id = %s AND id <> %s AND NOT ({_TAKES_WORK})
                    FOR UPDATE SKIP LOCKED)""",  # noqa: S608 a constant
            [run_id, node.id, settings.GANTRY_LEASE_S],
        )
    # Another node may be doing the same at this moment: one of them gets it, the other goes on without.
    with contextlib.suppress(IntegrityError), transaction.atomic():
        cursor.execute(
            """UPDATE workers_node SET reserved_for_id = %s WHERE id = %s
               AND (%s::bigint IS NULL
                    OR NOT EXISTS (SELECT 1 FROM workers_node o WHERE o.reserved_for_id = %s))""",
            [run_id, node.id, run_id, run_id],
        )
