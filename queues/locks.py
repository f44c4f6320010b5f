"""The lock of a type: who changes its entries or its capacity shares it, admission has it alone.

So a decision sees every change that is committed and none that is not, and the order of commits is the order
in which things happened. Held until the transaction ends; a crashed holder frees it.
"""

from __future__ import annotations

from typing import Final

from django.db.backends.utils import CursorWrapper

#: First half of the advisory lock's key: "gque" in ASCII.
_SPACE: Final = 0x67717565


def share(cursor: CursorWrapper, kind: str) -> None:
    """For a change of entries, pools, policies or quotas of this type."""
    cursor.execute("SELECT pg_advisory_xact_lock_shared(%s, hashtext(%s))", [_SPACE, kind])


def alone(cursor: CursorWrapper, kind: str) -> None:
    """For a decision on this type: waits for changes that are under way, and lets none begin."""
    cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_SPACE, kind])
