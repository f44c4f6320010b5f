"""The lock of a type: who changes its entries or its capacity shares it, admission has it alone.

So a decision sees every change that is committed and none that is not, and the order of commits is the order
in which things happened. Held until the transaction ends; a crashed holder frees it. One that stands still in
its transaction (a process that is stopped, a machine that is paused) is ended by Postgres.
"""

from __future__ import annotations

from typing import Final

from django.db.backends.utils import CursorWrapper

#: First half of the advisory lock's key: "gque" in ASCII.
_SPACE: Final = 0x67717565
#: A change that asks nothing of the database for so long is given up: nobody of its type is admitted
#: meanwhile. Changes take milliseconds, of 10,000 hosts a second.
IDLE_S: Final = 15
#: SQLSTATE of a lock that could not be had in time, and of a deadlock that was ended: nothing was kept.
HELD_UP: Final = {"55P03", "40P01"}


def share(cursor: CursorWrapper, kind: str) -> None:
    """For a change of entries, pools, policies or quotas of this type."""
    cursor.execute(
        """SELECT pg_advisory_xact_lock_shared(%s, hashtext(%s)),
               set_config('idle_in_transaction_session_timeout', %s, true)""",
        [_SPACE, kind, f"{IDLE_S}s"],
    )


def alone(cursor: CursorWrapper, kind: str) -> None:
    """For a decision on this type: waits for changes that are under way, and lets none begin."""
    cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_SPACE, kind])


def change_alone(cursor: CursorWrapper, kind: str) -> None:
    """For a change beside which there is no other, with the limit that changes have."""
    alone(cursor, kind)
    cursor.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, true)", [f"{IDLE_S}s"])


def alone_at_once(cursor: CursorWrapper, kind: str) -> bool:
    """The same without waiting; False: somebody has it."""
    cursor.execute("SELECT pg_try_advisory_xact_lock(%s, hashtext(%s))", [_SPACE, kind])
    return bool(cursor.fetchone() == (True,))
