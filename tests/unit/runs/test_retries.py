"""Backoff by class of failure: catches a class that waits too long, a missing cap, a retried final one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import override_settings

from workers.runs.retries import FINAL_REASONS, backoff_s, may_retry
from workers.vocabulary.states import Reason


@pytest.fixture(autouse=True)
def _figures() -> Iterator[None]:
    with override_settings(GANTRY_RETRY_BASE_S=2.0, GANTRY_RETRY_CAP_S=300.0):
        yield


@pytest.mark.parametrize(
    ("reason", "attempt", "seconds"),
    [
        (Reason.EXIT_CODE, 1, 2),
        (Reason.EXIT_CODE, 2, 4),
        (Reason.OOM, 5, 32),
        (Reason.DISK, 5, 32),
        (Reason.TIMEOUT, 60, 300),
        (Reason.INPUT, 1, 10),
        (Reason.OUTPUT, 3, 40),
        (Reason.LOST, 7, 2),
        (Reason.UNREACHABLE, 1, 2),
        (Reason.NODE_GONE, 1, 2),
    ],
)
def test_waits(reason: Reason, attempt: int, seconds: float) -> None:
    for _ in range(50):
        assert 0.9 * seconds <= backoff_s(reason, attempt) <= 1.1 * seconds


def test_only_failures_that_another_try_may_mend_are_tried_again() -> None:
    assert not any(may_retry(reason) for reason in FINAL_REASONS)
    assert all(may_retry(reason) for reason in set(Reason) - FINAL_REASONS)


def test_jitter_keeps_a_herd_apart() -> None:
    assert len({backoff_s(Reason.LOST, 1) for _ in range(100)}) > 50
