"""Which run is stopped when workers keep dying."""

from __future__ import annotations

import pytest
from pytest_django.fixtures import Settings

from tests.support.claimed import claimed_run
from workers.node.adoption import suspect


@pytest.fixture(autouse=True)
def _three_deaths(settings: Settings) -> None:
    settings.GANTRY_MAX_CRASHES = 3


def test_nobody_is_suspected_too_early() -> None:
    assert suspect([]) is None
    assert suspect([claimed_run(1, crashes=2), claimed_run(2, crashes=0)]) is None


def test_of_equals_the_last_one_to_start() -> None:
    """Catches a run that was there for an hour without harm and is stopped for the newest one's."""
    early = claimed_run(1, crashes=3, started_ago=3600.0)
    late = claimed_run(2, crashes=3, started_ago=20.0)
    assert suspect([early, late]) is late
    unstarted = claimed_run(3, crashes=3)
    assert suspect([early, unstarted, late]) is unstarted


def test_who_saw_more_deaths_comes_before_who_came_later() -> None:
    """Catches a bystander that started between the deaths and is stopped in place of the culprit.

    The first suspect was stopped, and it was the wrong one: what came meanwhile has seen enough by now, too.
    """
    culprit = claimed_run(1, crashes=4, started_ago=60.0)
    bystanders = [claimed_run(number, crashes=3, started_ago=20.0 - number) for number in (2, 3)]
    assert suspect([culprit, *bystanders]) is culprit
