"""Many clients, operators and two admission loops at once, replayed in the order of commits with a model."""

from __future__ import annotations

from collections import Counter

import pytest
from django.db import connection

from queues.admission.look import look
from queues.models import Entry, HostResource, Queue, TypePolicy, WaitingClass
from tests.integration.queues import crowd, held, journal, replay
from tests.integration.queues.crowd import Crowd
from tests.integration.queues.scene import KIND
from workers.models import Callback
from workers.tenants import tenancy

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.invariant]

BOTH = pytest.mark.parametrize("mode", ["strict", "best_effort"])


@BOTH
def test_what_many_do_at_once_is_what_the_model_does_in_order(mode: str) -> None:
    """Catches capacity or a quota taken twice, an entry admitted out of turn or forgotten, a gang on two
    aggregates, a callback that is not owed or owed twice, an order that another call changed."""
    _history(mode, 320)


@pytest.mark.long
@pytest.mark.timeout(1800)
@BOTH
def test_five_thousand_calls_at_once_are_the_model_s(mode: str) -> None:
    """The same with 5,000."""
    _history(mode, 5000)


def _history(mode: str, count: int) -> None:
    TypePolicy.objects.create(type=KIND, mode=mode)
    tenants = {tenancy.create_tenant(name).pk: name for name in ("first", "second", "third")}
    with journal.kept():
        for name in crowd.AGGREGATES:
            hosts = {f"h{number}": {"VCPU": 8000, "Memory": 8000} for number in range(3)}
            crowd.declare(name, hosts, {})
        done = Crowd(tenants, count)
        done.run()
        looks = len(done.looks)
        _let_all_go(tenants)
        rows = journal.rows()
    replayed = _replayed(mode == "strict", rows)
    found = replayed.counts
    print(mode, dict(done.done), dict(done.refused), dict(found))
    assert held.check_capacity(rows) > count / 4
    assert sum(row.what == journal.LOOK for row in rows) >= looks, "a look was refused its bookings"
    assert min(found[what] for what in ("submit", "move", "end", "quota", "declare", "admitted")) > 0
    _account(done, replayed)


def _let_all_go(tenants: dict[int, str]) -> None:
    """No quotas, large hosts for all: nobody is left but those who wait for what is not there."""
    for tenant in tenants:
        for owner in crowd.OWNERS:
            for resource in ("VCPU", "Memory"):
                journal.calls(op="quota")
                crowd.set_quota(tenant, owner, resource, None)
    for name in crowd.AGGREGATES:
        hosts = {f"h{number}": {"VCPU": 400_000, "Memory": 400_000} for number in range(3)}
        crowd.declare(name, hosts, {})
    journal.calls(op="loop")
    with connection.execute_wrapper(journal.note_looks(lambda: None)):
        look(KIND)


def _replayed(strict: bool, rows: list[journal.Row]) -> replay.Replay:
    found = replay.Replay(
        strict,
        dict(Queue.objects.values_list("pk", "tenant_id")),
        {
            (aggregate, host): id_
            for aggregate, host, id_ in HostResource.objects.values_list(
                "host__aggregate__name", "host__name", "host_id"
            )
        },
        {id_: (host, name) for id_, host, name in HostResource.objects.values_list("pk", "host_id", "name")},
    )
    for commit in journal.commits(rows):
        try:
            found.commit(commit)
        except AssertionError as error:
            what = ", ".join(sorted({row.what for row in commit}))
            raise AssertionError(f"commit {commit[0].serial}, {commit[0].call}, {what}: {error}") from error
    return found


def _account(done: Crowd, replayed: replay.Replay) -> None:
    """Every entry that was accepted is where the model has it, and everything beside it adds up."""
    entries = list(Entry.objects.select_related("queue"))
    assert sorted((each.queue.tenant_id, each.request_id) for each in entries) == sorted(done.accepted)
    assert {each.pk: each.status for each in entries} == {
        id_: known.status for id_, known in replayed.entries.items()
    }
    waiting = Counter(each.waiting_class_id for each in entries if each.status == "queued")
    assert dict(WaitingClass.objects.filter(waiting__gt=0).values_list("pk", "waiting")) == waiting
    assert {each.request_id for each in entries if each.status == "queued"} == {
        known.request
        for known in replayed.entries.values()
        if known.bound == "nowhere" and known.status == "queued"
    }, "who is left waits for what is not there"
    begun = {str(each.pk) for each in entries if each.admitted_at is not None}
    owed = list(Callback.objects.filter(owner_kind="entry").values_list("owner_id", flat=True))
    assert sorted(owed) == sorted(begun)
