"""What a receiver's answer means, when the next try is due, and the signature; all pure."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from workers.callbacks.schedule import Decision, Sent, backoff_s, decide, is_permanent, retry_after_s
from workers.callbacks.signing import headers

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()


def decided(sent: Sent, **given: Any) -> Decision:
    facts = {"attempts_made": 1, "age_s": 0.0, "slow": False, "failures": 0, "chance": 0.5, **given}
    return decide(sent, **facts)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_any_2xx_is_success(status: int) -> None:
    found = decided(Sent(status, "", 5))
    assert (found.state, found.next_in_s, found.rests_s) == ("delivered", None, None)


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 408, 425, 429, 500, 503])
def test_anything_else_is_tried_again(status: int) -> None:
    found = decided(Sent(status, "x", 5))
    assert (found.state, found.next_in_s) == ("due", 5.0)


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        *((status, True) for status in (400, 401, 404, 422)),
        *((status, False) for status in (408, 409, 423, 425, 429, 500, 302)),
    ],
)
def test_only_a_permanent_4xx_lets_successors_pass(status: int, permanent: bool) -> None:
    assert is_permanent(Sent(status, "x", 5)) is permanent
    assert decided(Sent(status, "x", 5)).yields is permanent


def test_410_disables() -> None:
    assert decided(Sent(410, "x", 5)).state == "disabled"


def test_a_refused_address_is_tried_again_and_holds_nobody_up() -> None:
    found = decided(Sent(None, "refused", 0, refused=True), failures=3)
    assert (found.state, found.yields, found.rests_s, found.failures) == ("due", True, None, 0)


def test_a_timeout_leads_to_the_slow_lane_and_a_brisk_answer_out_of_it() -> None:
    late = Sent(None, "no answer", 15_000, timed_out=True)
    assert decided(late).slow is True
    assert decided(Sent(None, "refused connection", 3)).slow is False
    assert decided(Sent(None, "refused connection", 3), slow=True).slow is True
    assert decided(Sent(200, "", 3000), slow=True).slow is True
    assert decided(Sent(500, "", 30), slow=True).slow is False


def test_a_receiver_that_does_not_answer_rests_longer_each_time() -> None:
    silent = Sent(None, "no answer", 15_000, timed_out=True)
    rests = [decided(silent, failures=failures).rests_s for failures in range(6)]
    assert rests == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert decided(Sent(200, "", 3), failures=5).failures == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("Wed, 25 Nov 2026 12:01:00 GMT", 60.0),
        ("Wed, 25 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
        (None, None),
        ("9999999999", 1e9),
        ("9" * 400, 1e9),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry_after_s(text, NOW) == seconds


def test_retry_after_is_honoured_within_limits(settings: Any) -> None:
    settings.GANTRY_CALLBACK_RETRY_CAP_S = 600
    assert decided(Sent(429, "x", 5, retry_after=90.0)).next_in_s == 90.0
    assert decided(Sent(503, "x", 5, retry_after=0.0)).next_in_s == 1.0
    assert decided(Sent(503, "x", 5, retry_after=1e8)).next_in_s == 600


def test_backoff_grows_to_its_cap_with_jitter() -> None:
    assert [backoff_s(n, 0.5) for n in (1, 2, 3, 4)] == [5.0, 10.0, 20.0, 40.0]
    assert backoff_s(60, 0.5) == 21_600
    assert (backoff_s(1, 0.0), backoff_s(1, 1.0)) == (3.75, 6.25)


def test_it_is_given_up_after_about_three_days() -> None:
    attempts, age = 1, 0.0
    while (found := decided(Sent(500, "x", 5), attempts_made=attempts, age_s=age)).state == "due":
        attempts, age = attempts + 1, age + (found.next_in_s or 0)
    assert found.state == "dead"
    assert timedelta(days=2.5) < timedelta(seconds=age) < timedelta(days=3)
    assert 15 < attempts < 40, "so many attempts, not one an hour and not thousands"


@given(st.text(max_size=200), st.sampled_from([[SECRET], [SECRET, OTHER], [OTHER, SECRET]]))
def test_a_receivers_own_library_accepts_the_signature(text: str, values: list[str]) -> None:
    body = (
        '{"a": "' + text.encode("unicode_escape").decode().replace("\\", "").replace('"', "") + '"}'
    ).encode()
    sent = headers("msg_1", body, values, time.time())
    Webhook(SECRET).verify(body, sent)
    for wrong in (body + b" ", body.replace(b"a", b"b", 1)):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(wrong, sent)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, {**sent, "webhook-id": "msg_2"})


def test_a_secret_that_is_not_valid_any_more_signs_nothing() -> None:
    sent = headers("msg_1", b"{}", [OTHER], time.time())
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(b"{}", sent)
