"""Ask external providers, and write what they say: by type, every few seconds, outside of any lock.

What they say counts from the moment at which they were asked. So a booking whose hold has ended is dropped in
the same commit that writes an answer asked for after that: its use is counted by them or by us, never by
nobody.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.utils.module_loading import import_string

from queues import locks, pools
from queues.admission import booking
from queues.models import TypePolicy
from queues.providers.base import Make, Provider, Reported, Trouble, checked
from workers import secrets
from workers.vocabulary.errors import EngineError

log = structlog.get_logger(__name__)

#: Provider -> dotted path of what makes one. Declared pools are not asked: operators write them.
PROVIDERS: Final[Mapping[str, str]] = {
    "placement": "queues.providers.placement.make",
    "kubernetes": "queues.providers.kubernetes.make",
}

#: A host that has not been told of for so long is deleted: clusters that grow and shrink name theirs anew.
_GONE_S: Final = 86_400.0
#: Taken by whoever asks: the others leave it alone until it is due again.
_TAKE: Final = """
    UPDATE queues_typepolicy SET asked_at = clock_timestamp()
    WHERE type = %s AND (asked_at IS NULL OR asked_at < clock_timestamp() - %s * interval '1 second')
    RETURNING asked_at
"""
#: Unless a later question has been answered already (what used a hold that ended then would be forgotten),
#: or the operator has changed whom to ask.
_HEARD: Final = """
    UPDATE queues_typepolicy SET heard_at = %s, trouble = ''
    WHERE type = %s AND (heard_at IS NULL OR heard_at < %s) AND provider = %s AND options = %s::jsonb
"""
_TROUBLE: Final = "UPDATE queues_typepolicy SET trouble = %s WHERE type = %s AND trouble <> %s"
_REMOVED: Final = """
    SELECT name FROM queues_aggregate WHERE type = %s AND removed_at IS NULL AND NOT name = ANY(%s)
"""
#: Also of what was told when the type had declared pools: it would be held for ever.
_ENDED: Final = """
    UPDATE queues_entry e SET hold_ends_at = NULL FROM queues_queue q
    WHERE q.id = e.queue_id AND q.type = %s AND e.status = 'running'
        AND coalesce(e.hold_ends_at, e.told_at + %s * interval '1 second') < %s
        AND EXISTS (SELECT 1 FROM queues_booking b WHERE b.entry_id = e.id)
    RETURNING e.id
"""


#: Type -> who is asking for it in this process.
_asking: dict[str, threading.Thread] = {}


def refresh_all() -> int:
    """Have every provider asked that is not being asked; returns how many. Waits for none of them."""
    count = 0
    for policy in TypePolicy.objects.exclude(provider="pools").order_by("type"):
        asking = _asking.get(policy.type)
        if asking is None or not asking.is_alive():
            name = f"provider-{policy.type}"
            _asking[policy.type] = threading.Thread(target=_ask, args=(policy,), name=name, daemon=True)
            _asking[policy.type].start()
            count += 1
    return count


def _ask(policy: TypePolicy) -> None:
    try:
        refresh(policy)
    except Exception:
        log.exception("queues.provider_failed", type=policy.type, provider=policy.provider)
    finally:
        connection.close()


def refresh(policy: TypePolicy) -> bool:
    """Ask the provider of one type, if it is due and nobody else is asking; whether its answer counts."""
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, [policy.type, settings.GANTRY_QUEUE_SNAPSHOT_S])
        row = cursor.fetchone()
    if row is None:
        return False
    try:
        reported = checked(_provider(policy).capacity())
    except (Trouble, EngineError) as trouble:
        _tell(policy, str(trouble))
        return False
    except Exception:
        _tell(policy, "it could not be asked, because of a fault of this service; its log says more")
        raise
    with transaction.atomic(), connection.cursor() as cursor:
        locks.alone(cursor, policy.type)
        asked_at = row[0]
        cursor.execute(_HEARD, [asked_at, policy.type, asked_at, policy.provider, json.dumps(policy.options)])
        if not cursor.rowcount:
            return False
        _write(cursor, policy.type, reported, asked_at=asked_at)
    if policy.trouble:
        log.info("queues.provider_back", type=policy.type, provider=policy.provider)
    return True


def _provider(policy: TypePolicy) -> Provider:
    """The provider of a type. Its password or token is the option ``secret``."""
    options: dict[str, Any] = dict(policy.options)
    if policy.secret_id is not None:
        options["secret"] = secrets.reveal(policy.secret_id)
    make: Make = import_string(PROVIDERS[policy.provider])
    return make(options)


def _write(cursor: CursorWrapper, kind: str, reported: list[Reported], *, asked_at: datetime) -> None:
    for each in reported:
        pools.write(cursor, kind, each.name, list(each.hosts))
    cursor.execute(_REMOVED, [kind, [each.name for each in reported]])
    for (name,) in cursor.fetchall():
        pools.clear(cursor, kind, name)
    pools.forget(cursor, kind, _GONE_S)
    cursor.execute(_ENDED, [kind, settings.GANTRY_QUEUE_HANDOVER_S, asked_at])
    ended = [row[0] for row in cursor.fetchall()]
    if ended:
        booking.hand_over(cursor, ended)
    pools.back_in_line(cursor, kind)


def _tell(policy: TypePolicy, trouble: str) -> None:
    log.warning("queues.provider_trouble", type=policy.type, provider=policy.provider, error=trouble)
    with connection.cursor() as cursor:
        cursor.execute(_TROUBLE, [trouble[:500], policy.type, trouble[:500]])
