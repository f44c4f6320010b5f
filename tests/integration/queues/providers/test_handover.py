"""What was admitted is counted by us until the provider counts it: never by nobody, not twice for good."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from queues import pools
from queues.entries import services
from queues.models import Entry, OwnerHolding, TypePolicy
from queues.providers import refresh
from queues.providers.base import Provider, Reported
from tests.integration.queues.providers.conftest import Line
from tests.support.capacity import Subject
from tests.support.waiting import limit

pytestmark = [
    pytest.mark.daemons,
    pytest.mark.xdist_group("openstack"),
    pytest.mark.django_db(transaction=True),
]
external = pytest.mark.parametrize("subject", ["placement", "kubernetes"], indirect=True)


@pytest.fixture
def entry(subject: Subject, line: Line) -> int:
    """One that has been admitted and told, and has 6 of 8; its instance is not there yet."""
    subject.host("one", "a", 8)
    subject.policy()
    assert subject.ask()
    made = line.submit("first", 6)
    assert line.look() == 1
    line.told(made)
    return made


class Slow:
    """A provider whose answer reaches us only after something else has happened."""

    def __init__(self, provider: Provider, meanwhile: Callable[[], object]) -> None:
        self._provider = provider
        self._meanwhile = meanwhile

    def capacity(self) -> list[Reported]:
        found = self._provider.capacity()
        self._meanwhile()
        return found


@external
def test_the_hold_ends_once_and_their_usage_counts(subject: Subject, line: Line, entry: int) -> None:
    """At every moment 6 of 8 or more are taken; a request for 3 never goes."""
    line.submit("second", 3)
    assert Entry.objects.get(pk=entry).hold_ends_at is not None
    assert subject.ask()
    assert (line.look(), line.held()) == (0, 6), "a hold that has not ended stays"
    used = subject.use("a", 6)
    assert subject.ask()
    assert (line.look(), line.held()) == (0, 6)
    line.hold_ends(entry)
    assert (line.look(), line.held()) == (0, 6), "only an answer that was asked for afterwards ends it"
    assert subject.ask()
    assert (line.look(), line.held()) == (0, 0)
    assert subject.cpus() == {"one": {"a": (8, 6)}}
    assert Entry.objects.get(pk=entry).hold_ends_at is None
    assert OwnerHolding.objects.get(resource=subject.cpu).held == 6000, "its owner still has it"
    assert subject.ask()
    assert line.held() == 0
    line.finish(entry)
    assert (line.held(), OwnerHolding.objects.get(resource=subject.cpu).held) == (0, 0)
    assert line.look() == 0, "the instance is there as long as the provider says so"
    subject.give_back(used)
    assert subject.ask()
    assert line.look() == 1


@external
def test_an_answer_asked_for_before_the_hold_ended_does_not_end_it(
    subject: Subject, line: Line, entry: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches use that nobody counts: the answer is older than the instance and the end of the hold."""
    make = refresh._provider

    def ends_meanwhile() -> None:
        subject.use("a", 6)
        line.hold_ends(entry)

    monkeypatch.setattr(refresh, "_provider", lambda policy: Slow(make(policy), ends_meanwhile))
    line.submit("second", 3)
    assert subject.ask()
    assert (line.look(), line.held()) == (0, 6)
    monkeypatch.undo()
    assert subject.ask()
    assert (line.look(), line.held()) == (0, 0)
    assert subject.cpus() == {"one": {"a": (8, 6)}}


def ask_in_thread(subject: Subject) -> tuple[threading.Thread, list[bool]]:
    answered: list[bool] = []

    def work() -> None:
        try:
            answered.append(subject.ask())
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread, answered


@external
def test_an_answer_that_was_overtaken_is_dropped(
    subject: Subject, line: Line, entry: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a slow answer of one process over a later one of another: it would forget what has ended its
    hold in between."""
    make = refresh._provider
    has_answer, may_go_on = threading.Event(), threading.Event()

    def wait() -> None:
        has_answer.set()
        assert may_go_on.wait(limit(60))

    monkeypatch.setattr(refresh, "_provider", lambda policy: Slow(make(policy), wait))
    thread, answered = ask_in_thread(subject)
    assert has_answer.wait(limit(60))
    monkeypatch.undo()
    subject.use("a", 6)
    line.hold_ends(entry)
    assert subject.ask()
    assert line.held() == 0
    may_go_on.set()
    thread.join(limit(60))
    assert answered == [False]
    assert subject.cpus() == {"one": {"a": (8, 6)}}, "the later answer stands"
    line.submit("second", 3)
    assert line.look() == 0


@pytest.mark.parametrize("subject", ["kubernetes"], indirect=True)
@pytest.mark.parametrize(
    "change",
    [{"provider": "pools"}, {"options": {"server": "http://127.0.0.1:1"}}],
    ids=["another-provider", "other-options"],
)
def test_the_answer_of_whom_nobody_asks_any_more_is_dropped(
    subject: Subject, line: Line, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """Catches declared pools that are overwritten by what an operator has just turned away from."""
    subject.host("one", "a", 8)
    policy = subject.policy()
    make = refresh._provider

    def turns_away() -> None:
        TypePolicy.objects.filter(pk=policy.pk).update(**change)
        pools.declare(subject.kind, "declared", [pools.HostAmounts("d", {"cpu": 1000}, {})])

    monkeypatch.setattr(refresh, "_provider", lambda policy: Slow(make(policy), turns_away))
    assert not subject.ask()
    assert subject.cpus() == {"declared": {"d": (1, 0)}}


@pytest.mark.parametrize("subject", ["kubernetes"], indirect=True)
def test_a_confirmation_before_the_callback_ends_the_hold(subject: Subject, line: Line) -> None:
    """Catches a hold without an end: its client has asked for the status, and was faster than the teller."""
    subject.host("one", "a", 8)
    subject.policy()
    assert subject.ask()
    entry = Entry.objects.get(pk=line.submit("first", 6))
    assert line.look() == 1
    services.confirm(entry.queue.tenant_id, subject.kind, entry.request_id)
    services.confirm(entry.queue.tenant_id, subject.kind, entry.request_id)
    assert subject.ask()
    assert line.held() == 0
    services.confirm(entry.queue.tenant_id, subject.kind, entry.request_id)
    assert Entry.objects.get(pk=entry.pk).hold_ends_at is None, "it is handed over already"


@pytest.mark.parametrize("subject", ["kubernetes"], indirect=True)
def test_what_was_told_before_the_provider_came_is_handed_over(
    subject: Subject, line: Line, entry: int, settings: Any
) -> None:
    """Catches holds for ever where a type with declared pools gets a provider."""
    Entry.objects.filter(pk=entry).update(hold_ends_at=None)  # as with declared pools
    assert subject.ask()
    assert line.held() == 6, "its time has not come"
    settings.GANTRY_QUEUE_HANDOVER_S = 0.0
    assert subject.ask()
    assert line.held() == 0
