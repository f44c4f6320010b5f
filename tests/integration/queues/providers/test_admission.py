"""Admission on what external providers say: never blindly, never twice, and again by itself."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from django.db import connection

from queues.models import Booking, HostResource
from queues.providers import refresh
from tests.integration.queues.providers.conftest import Line
from tests.support.capacity import Subject
from tests.support.waiting import limit, wait_until

pytestmark = [
    pytest.mark.daemons,
    pytest.mark.xdist_group("openstack"),
    pytest.mark.django_db(transaction=True),
]
external = pytest.mark.parametrize("subject", ["placement", "kubernetes"], indirect=True)


def _answered(subject: Subject) -> None:
    """Who asks in this process has written the answer: no table is emptied under its hands."""
    thread = refresh._asking[subject.kind]
    thread.join(limit(60))
    assert not thread.is_alive()


@external
def test_what_others_use_is_not_given_away(subject: Subject, line: Line) -> None:
    """A gang goes where all of it fits beside what is used; the next one when something becomes free."""
    subject.host("one", "a", 8)
    subject.host("two", "b", 8)
    subject.host("two", "c", 4)
    used = [subject.use("a", 6), subject.use("b", 5)]
    subject.policy()
    line.submit("gang", 3, 4)
    line.submit("next", 8)
    assert subject.ask()
    assert line.look() == 1
    assert (line.running(), line.held()) == (["gang"], 7)
    places = set(
        Booking.objects.filter(resource__name=subject.cpu).values_list("resource__host__name", "amount")
    )
    assert places == {("b", 3000), ("c", 4000)}
    assert line.look() == 0
    subject.give_back(used[0])
    assert line.look() == 0, "nobody has asked since"
    assert subject.ask()
    assert line.look() == 1
    assert line.running() == ["gang", "next"]


@external
def test_nothing_is_admitted_before_the_first_answer(subject: Subject, line: Line) -> None:
    subject.host("one", "a", 8)
    subject.policy()
    line.submit("r", 1)
    assert line.look() == 0
    level, message = line.why("r")
    assert level == "provider"
    assert f"{subject.provider} was heard never" in message
    assert subject.ask()
    assert line.look() == 1


@external
@pytest.mark.parametrize("how", ["cut", "freeze"])
def test_stopped_or_silent_then_back_by_itself(subject: Subject, line: Line, settings: Any, how: str) -> None:
    """Catches admission on an old answer, a cause that nobody tells, and a type that stays behind."""
    settings.GANTRY_QUEUE_SNAPSHOT_S = 0.05
    subject.host("one", "a", 8)
    subject.policy()
    assert subject.ask()
    line.submit("before", 1)
    assert line.look() == 1
    settings.GANTRY_QUEUE_PROVIDER_S = 1.0
    getattr(subject, how)()
    assert not subject.ask()
    line.submit("within", 1)
    assert line.look() == 1, "an answer is good for GANTRY_QUEUE_STALE_S"
    line.silent_for(60)
    line.submit("after", 1)
    assert line.look() == 0
    level, message = line.why("after")
    assert level == "provider"
    told = rf"{subject.provider} was heard (\d+) s ago: {subject.provider.title()}: http://127\.0\.0\.1:"
    found = re.search(told, message)
    assert found, message
    assert int(found[1]) >= 60
    assert subject.secret not in message
    subject.mend()
    settings.GANTRY_QUEUE_PROVIDER_S = limit(60.0)

    def goes_on() -> int:
        refresh.refresh_all()  # as a worker's duty does
        return line.look()

    wait_until(goes_on, why="the provider is asked again, and its answer admits")
    _answered(subject)
    assert line.running() == ["before", "within", "after"]
    assert subject.trouble() == ""


@external
def test_asking_delays_nobody(subject: Subject, line: Line, settings: Any) -> None:
    """Catches a provider that is asked under the lock of its type, or by whoever admits."""
    settings.GANTRY_QUEUE_SNAPSHOT_S = 0.0
    subject.host("one", "a", 8)
    subject.policy()
    assert subject.ask()
    subject.freeze()
    assert refresh.refresh_all() == 1
    assert refresh.refresh_all() == 0, "once at a time"
    line.submit("r", 1)
    assert line.look() == 1
    subject.mend()
    _answered(subject)


@external
def test_shrinking_below_what_is_held(subject: Subject, line: Line) -> None:
    """Nothing is admitted where more is used than there is, until the excess has gone."""
    subject.host("one", "a", 8)
    subject.policy()
    assert subject.ask()
    entries = [line.submit(f"r{number}", 2) for number in range(4)]
    line.submit("waits", 2)
    assert line.look() == 4
    subject.host("one", "a", 4)
    assert subject.ask()
    for entry in entries[:2]:
        assert line.look() == 0
        line.finish(entry)
    assert line.look() == 0, "what is left is just what there is"
    line.finish(entries[2])
    assert line.look() == 1


@external
def test_shrinking_while_admitting(subject: Subject, line: Line) -> None:
    """Looks and answers at once: whatever their order, no booking was of more than was free at its commit."""
    subject.host("one", "a", 24)
    subject.policy()
    assert subject.ask()
    for number in range(40):
        line.submit(f"r{number}", 1)
    errors: list[BaseException] = []
    done = threading.Event()

    def looks() -> None:
        try:
            while not done.is_set():
                line.look()
                done.wait(0.01)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=looks) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for size in (20, 16, 30, 12):
            subject.host("one", "a", size)
            assert subject.ask()
    finally:
        done.set()
        for thread in threads:
            thread.join(limit(60))
    assert not errors
    assert line.look() == 0, "what is booked is more than there is now"
    assert 24 <= line.held() <= 30
    assert not Booking.objects.filter(left__lt=0).exists()
    assert HostResource.objects.get(name=subject.cpu).total == 12_000


@external
def test_a_host_that_is_forgotten(subject: Subject, line: Line) -> None:
    """What runs there goes on and is given back once; nothing new goes there."""
    subject.host("one", "a", 8)
    subject.policy()
    assert subject.ask()
    first = line.submit("first", 6)
    assert line.look() == 1
    subject.host("one", "b", 4)
    subject.forget("a")
    assert subject.ask()
    line.submit("second", 4)
    line.submit("third", 2)
    assert line.look() == 1
    assert set(
        Booking.objects.filter(resource__name=subject.cpu).values_list("resource__host__name", "amount")
    ) == {("a", 6000), ("b", 4000)}
    line.finish(first)
    assert line.look() == 0
    assert line.held() == 4
    assert line.why("third")[0] == "no_capacity"
    subject.host("one", "a", 8)
    assert subject.ask()
    assert line.look() == 1
