"""One delivery over HTTP: a signed POST through the guard, with one limit for everything.

Never raises for what the receiver or the network does: that is the result. Must not import models.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from workers import addresses
from workers.addresses.http import Resolver
from workers.callbacks import signing
from workers.callbacks.schedule import Sent, retry_after_s
from workers.vocabulary.errors import AddressRefused, InvalidInput

PURPOSE: Final = "callback"
#: So much of an answer is read, and no longer than this: what it says does not matter.
ANSWER_MOST: Final = 16 * 1024
_ANSWER_S: Final = 1.0
_ERROR_MOST: Final = 500


def send(
    url: str,
    message_id: str,
    body: str,
    values: Sequence[str],
    *,
    total_s: float,
    tick: Callable[[], None] = lambda: None,
    resolver: Resolver = addresses.system_resolver,
) -> Sent:
    """POST ``body`` once. ``values``: secrets that sign; ``tick`` is called while waiting and may raise."""
    content = body.encode()
    headers = {
        "Content-Type": "application/json",
        **signing.headers(message_id, content, values, time.time()),
    }
    began = time.monotonic()
    answered: float | None = None

    def still_wanted() -> None:
        tick()
        if answered is not None and time.monotonic() - answered > _ANSWER_S:
            raise TimeoutError("the answer's body takes too long")

    def ms() -> int:
        return round((time.monotonic() - began) * 1000)

    try:
        with addresses.open_url(
            url,
            purpose=PURPOSE,
            deadline=addresses.Deadline(total_s, stall_s=math.inf, tick=still_wanted),
            method="POST",
            headers=headers,
            body=content,
            credentials=True,
            resolver=resolver,
        ) as response:
            answered = time.monotonic()
            took = ms()
            _read_a_little(response)
            return Sent(
                response.status,
                _meaning(response.status),
                took,
                retry_after_s(response.headers.get("Retry-After"), datetime.now(UTC)),
            )
    except AddressRefused as error:
        return Sent(None, error.message[:_ERROR_MOST], ms(), refused=True)
    except InvalidInput as error:
        return Sent(None, error.message[:_ERROR_MOST], ms(), refused=True)
    except addresses.AddressFailed as error:
        timed_out = isinstance(error.__cause__, TimeoutError)
        return Sent(None, error.message[:_ERROR_MOST], ms(), timed_out=timed_out)


def _read_a_little(response: addresses.Response) -> None:
    """So that the receiver sees its answer taken; whether that works says nothing about the delivery."""
    try:
        response.body(ANSWER_MOST)
    except addresses.AddressFailed:
        return


def _meaning(status: int) -> str:
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return "the receiver redirects; redirects are not followed"
    return f"the receiver answered {status}"
