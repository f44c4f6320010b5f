"""The demo's receiver of callbacks, which verifies without a library, against the library."""

from __future__ import annotations

import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook

from config.local.receiver import Receiver
from tests.support.waiting import limit

SECRET, OTHER = "whsec_" + "a" * 32, "whsec_" + "b" * 32
BODY = '{"taskId":1}'


def _post(receiver: Receiver, signature: str, at: datetime, body: str = BODY) -> int:
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
    }
    request = urllib.request.Request(receiver.url, body.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=limit(60)) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_it_takes_what_is_rightly_signed_and_nothing_else() -> None:
    """Catches a demo that says "its signature is right" of anything."""
    now = datetime.now(UTC)
    right = Webhook(SECRET).sign("msg_1", now, BODY)
    wrong = Webhook(OTHER).sign("msg_1", now, BODY)
    old = now - timedelta(hours=1)
    with Receiver(SECRET) as receiver:
        assert _post(receiver, right, now) == 204
        assert _post(receiver, f"{wrong} {right}", now) == 204, "one of several is enough"
        assert _post(receiver, wrong, now) == 401
        assert _post(receiver, right, now, '{"taskId":2}') == 401
        assert _post(receiver, "", now) == 401
        assert _post(receiver, Webhook(SECRET).sign("msg_1", old, BODY), old) == 401
        assert (receiver.taken, receiver.refused) == ([{"taskId": 1}] * 2, 4)


@pytest.mark.parametrize("timestamp", ["", "yesterday", "-5", "²"])
def test_a_timestamp_that_is_none(timestamp: str) -> None:
    with Receiver(SECRET) as receiver:
        assert not receiver.is_right(b"", "msg_1", timestamp, "v1,x")
