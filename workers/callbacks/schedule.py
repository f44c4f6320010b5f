"""What the answer of a receiver means, and when the next try is due. Pure but for the settings.

Sources: contract page 00, "Callbacks"; docs/callbacks.md says the same to receivers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Literal

from django.conf import settings

#: Client errors that time may mend; every other 4xx is permanent: retried, but nobody waits for it.
PASSING: Final = frozenset((408, 409, 423, 425, 429))
GONE: Final = 410
#: An answer that took longer than this does not take a receiver out of the slow lane.
BRISK_MS: Final = 1000
#: Longest rest of a receiver that does not answer, in seconds.
REST_MOST_S: Final = 60.0


@dataclass(frozen=True)
class Sent:
    """What came of one request. ``status`` is None where there was no answer; then ``error`` says why."""

    status: int | None
    error: str
    ms: int
    #: Seconds, from the header Retry-After.
    retry_after: float | None = None
    #: Refused by the guard, or no address at all: nothing was sent.
    refused: bool = False
    timed_out: bool = False

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True)
class Decision:
    """What to record: the callback's new state, and how the receiver is treated from now on."""

    state: Literal["due", "delivered", "dead", "disabled"]
    #: Seconds until the next try; None when there is none.
    next_in_s: float | None
    #: Later callbacks of the same object need not wait for this one.
    yields: bool
    slow: bool
    failures: int
    #: Seconds for which the receiver is left alone; None = none.
    rests_s: float | None


#: Longer than anything that is waited for, in seconds.
_LONGEST_S: Final = 1e9


def retry_after_s(text: str | None, now: datetime) -> float | None:
    """Retry-After as seconds from now: a number of seconds or an HTTP date; None when it is neither."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_S)  # a number may have any length
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def backoff_s(attempts_made: int, chance: float) -> float:
    """Seconds until the next try after so many; ``chance`` (0 to 1) is the jitter: 75 to 125 %."""
    base, cap = settings.GANTRY_CALLBACK_RETRY_BASE_S, settings.GANTRY_CALLBACK_RETRY_CAP_S
    return float(min(base * 2 ** min(attempts_made - 1, 40), cap) * (0.75 + chance / 2))


def is_permanent(sent: Sent) -> bool:
    """Will the same request be refused again, whenever it is sent?"""
    return sent.refused or (
        sent.status is not None and 400 <= sent.status < 500 and sent.status not in PASSING
    )


def decide(
    sent: Sent, *, attempts_made: int, age_s: float, slow: bool, failures: int, chance: float | None = None
) -> Decision:
    """What to record after an attempt.

    ``attempts_made`` counts this one; ``age_s``: since it first became due; ``slow`` and ``failures`` are the
    receiver's so far.
    """
    chance = random.random() if chance is None else chance  # noqa: S311  jitter, no secret
    unanswered = sent.status is None and not sent.refused
    failures = failures + 1 if unanswered else 0
    slow = sent.timed_out or (slow and (sent.status is None or sent.ms > BRISK_MS))
    rests = min(backoff_s(failures, chance), REST_MOST_S) if unanswered else None
    if sent.accepted:
        return Decision("delivered", None, False, slow, failures, rests)
    if sent.status == GONE:
        return Decision("disabled", None, True, slow, failures, rests)
    wait = backoff_s(attempts_made, chance)
    if sent.retry_after is not None:
        wait = min(max(sent.retry_after, 1.0), settings.GANTRY_CALLBACK_RETRY_CAP_S)
    if age_s + wait > settings.GANTRY_CALLBACK_GIVE_UP_S:
        return Decision("dead", None, True, slow, failures, rests)
    return Decision("due", wait, is_permanent(sent), slow, failures, rests)
