"""What the API and the admin do about callbacks: replay, enable a URL, send a test.

Everything takes the tenant (None: any, for operators). Must not import HTTP views or the deliverer.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.conf import settings
from django.db import connection, transaction

from workers.callbacks import outbox, sending, signing
from workers.callbacks.rows import digest
from workers.callbacks.schedule import Sent
from workers.messages import doorbell
from workers.models import Callback, DisabledUrl
from workers.vocabulary.errors import Conflict, NotFound, Unavailable

#: Longest time of a check that a request waits for, in seconds (contract, "Addresses a client can name").
TEST_S: Final = 10.0
#: Most callbacks that one request replays.
REPLAY_MOST: Final = 10_000
_tests = threading.BoundedSemaphore(4)


@dataclass(frozen=True)
class Selection:
    """Which callbacks a replay by range means. ``since`` included, ``until`` not."""

    since: datetime
    until: datetime
    state: str = "dead"
    url: str = ""
    family: str = ""


_REPLAY: Final = """
    UPDATE workers_callback SET state = 'due', next_at = now(), due_since = now(), yields = false,
        delivered_at = NULL
    WHERE id = %s AND state <> 'due'
"""
_REPLAY_RANGE: Final = """
    UPDATE workers_callback SET state = 'due', next_at = now(), due_since = now(), yields = false,
        delivered_at = NULL
    WHERE id IN (
        SELECT c.id FROM workers_callback c
        WHERE c.state = %(state)s AND c.created_at >= %(since)s AND c.created_at < %(until)s
            AND (%(tenant)s::bigint IS NULL OR c.tenant_id = %(tenant)s)
            AND (%(url)s = '' OR c.url = %(url)s) AND (%(family)s = '' OR c.family = %(family)s)
            AND NOT EXISTS (SELECT 1 FROM workers_disabledurl d WHERE d.tenant_id = c.tenant_id
                AND d.digest = encode(sha256(convert_to(c.url, 'UTF8')), 'hex'))
        ORDER BY c.id LIMIT %(most)s FOR UPDATE SKIP LOCKED)
"""


def find(tenant_id: int | None, callback_id: int) -> Callback:
    """The callback, if it is the tenant's. NotFound otherwise."""
    found = Callback.objects.select_related("run", "tenant").filter(pk=callback_id)
    if tenant_id is not None:
        found = found.filter(tenant_id=tenant_id)
    row = found.first() if callback_id < 2**63 else None
    if row is None:
        raise NotFound(f"there is no callback {callback_id}")
    return row


def replay(tenant_id: int | None, callback_id: int) -> Callback:
    """Send one again, under the same webhook-id. Conflict while it is due, or its URL is disabled."""
    row = find(tenant_id, callback_id)
    if DisabledUrl.objects.filter(tenant_id=row.tenant_id, digest=digest(row.url)).exists():
        raise Conflict(
            f"the URL of callback {callback_id} is disabled: enable it first (/api/v1/callbacks/disabled)"
        )
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_REPLAY, [callback_id])
        if not cursor.rowcount:
            raise Conflict(f"callback {callback_id} is due already: it is being tried")
        doorbell.ring_callbacks_after_commit()
    return find(tenant_id, callback_id)


def replay_range(tenant_id: int | None, chosen: Selection) -> tuple[int, bool]:
    """Send again what a selection holds, the oldest first; (how many, are there more?).

    Callbacks to disabled URLs stay as they are.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            _REPLAY_RANGE,
            {
                "state": chosen.state,
                "since": chosen.since,
                "until": chosen.until,
                "tenant": tenant_id,
                "url": chosen.url,
                "family": chosen.family,
                "most": REPLAY_MOST,
            },
        )
        count = int(cursor.rowcount)
        if count:
            doorbell.ring_callbacks_after_commit()
    return count, count == REPLAY_MOST


def enable(tenant_id: int | None, disabled_id: int) -> DisabledUrl:
    """Let callbacks go to a URL again. Those that were disabled meanwhile stay so until they are replayed."""
    rows = DisabledUrl.objects.select_related("tenant").filter(pk=disabled_id)
    if tenant_id is not None:
        rows = rows.filter(tenant_id=tenant_id)
    row = rows.first()
    if row is None:
        raise NotFound(f"there is no disabled URL {disabled_id}")
    DisabledUrl.objects.filter(pk=disabled_id).delete()
    return row


def test(tenant_id: int, tenant: str, url: str) -> tuple[str, Sent]:
    """Send one signed ping now, under the guard; (webhook-id, what came of it). Nothing is stored."""
    if not _tests.acquire(blocking=False):
        raise Unavailable(
            "other tests of callbacks are under way in this process: try again in a few seconds"
        )
    try:
        message_id = outbox.message_id()
        body = json.dumps({"event": "test", "tenantId": tenant, "message": "a test of your callback URL"})
        values = signing.valid(tenant_id)
        if not connection.in_atomic_block:
            connection.close()  # ten seconds are too long to hold one
        return message_id, sending.send(
            url, message_id, body, values, total_s=min(TEST_S, settings.GANTRY_CALLBACK_TIMEOUT_S)
        )
    finally:
        _tests.release()
