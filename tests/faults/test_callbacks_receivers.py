"""Fault 24: receivers that hang, drip, cut, answer 500, redirect, 410, 429, or flood.

What they do costs nobody else anything, every end is told at least once under one webhook-id, and what a
receiver has accepted is not sent again.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection

from tests.support.cluster import Cluster, wait_until
from tests.support.engine import submit, wait_final
from tests.support.fixtures import Account
from tests.support.http import percentile
from tests.support.receivers import OPEN, Receivers, drip, drip_body, first, flood, hang, reset, status
from workers import outbox
from workers.callbacks import signing
from workers.models import Callback, CallbackReceiver, DisabledUrl


def states() -> list[Any]:
    return list(Callback.objects.order_by("id").values_list("url", "event", "state", "attempts_made"))


def wait_states(timeout_s: float = 90.0, **counts: int) -> None:
    """Wait until exactly so many callbacks are in each of these states."""
    wait_until(
        lambda: all(Callback.objects.filter(state=name).count() == n for name, n in counts.items()),
        timeout_s,
        why=f"callbacks are {counts}",
    )


def owe(tenant_id: int, urls: list[str], owner: str = "x", *, sequence: int = 1, waits: bool = False) -> None:
    """Callbacks of objects that are no runs, as a family would owe them; one object per URL."""
    with connection.cursor() as cursor:
        outbox.insert(
            cursor,
            [
                (
                    *(tenant_id, "tasks", "thing", f"{owner}{number}", None, sequence, "changed"),
                    *(outbox.message_id(), url, outbox.receiver(url), '{"n": 1}', waits),
                )
                for number, url in enumerate(urls)
            ],
        )


def test_bad_receivers_are_told_in_the_end(cluster: Cluster, account: Account) -> None:
    """Each fails twice in its own way, then takes it."""
    ways = {
        "hang": hang(),
        "drip": drip,
        "reset": reset,
        "error": status(500),
        "redirect": status(302, Location="http://127.0.0.1:1/"),
        "notfound": status(404),
        "busy": status(429, Retry_After="1"),
        "down": status(503),
    }
    _, secret = signing.make(account.tenant_id)
    cluster.node()
    cluster.callbacks(settings={**OPEN, "GANTRY_CALLBACK_TIMEOUT_S": "4"})
    with Receivers() as them:
        for name, way in ways.items():
            them.answers[f"/{name}"] = first(2, way)
        them.answers["/slowbody"], them.answers["/flood"] = drip_body, flood
        names = [*ways, "slowbody", "flood", "good"]
        runs = {
            name: submit(account.tenant_id, "sleep 0.3", callback_url=them.url(f"/{name}", number))
            for number, name in enumerate(names)
        }
        wait_final(*runs.values())
        wait_states(delivered=2 * len(runs))
        for name, run_id in runs.items():
            rows = list(Callback.objects.filter(run_id=run_id).order_by("sequence"))
            assert [(row.event, row.sequence) for row in rows] == [("running", 1), ("ended", 2)], name
            ids = them.ids(f"/{name}")
            assert set(ids) == {row.message_id for row in rows}, name
            for row in rows:
                statuses = [item.status for item in row.attempts.order_by("id")]
                assert statuses[-1] == 200, (name, statuses)
                assert len(statuses) == row.attempts_made == ids.count(row.message_id), (name, statuses)
            if name != "notfound":  # nobody waits for what a receiver refuses for good
                assert ids == sorted(ids, key=[row.message_id for row in rows].index), f"order of {name}"
            for delivery in them.at(f"/{name}"):
                assert delivery.verified(secret)["taskId"] == run_id
                assert delivery.headers["content-type"] == "application/json"
        assert {len(them.ids(f"/{name}")) for name in ways} == {4}
        assert {len(them.ids(f"/{name}")) for name in ("good", "slowbody", "flood")} == {2}
        busy = them.at("/busy")
        assert busy[1].at - busy[0].at >= 0.9, "Retry-After is honoured"
        # One that hangs may still hold the request that was given up when the next one comes.
        prompt = [name for name in names if name not in ("hang", "drip", "slowbody", "flood")]
        hosts = [urlsplit(them.url("/", names.index(name))).netloc for name in prompt]
        assert {them.most[host] for host in hosts} == {1}, "one request at a time for a receiver"
    assert not DisabledUrl.objects.exists()


def test_410_disables_the_url_for_its_tenant_only(
    cluster: Cluster, account: Account, stranger: Account
) -> None:
    cluster.callbacks(settings=OPEN)
    with Receivers() as them:
        them.answers["/gone"] = first(1, status(410))
        gone, alive = them.url("/gone", 1), them.url("/alive", 1)
        owe(account.tenant_id, [gone], "a")
        wait_states(disabled=1)
        owe(account.tenant_id, [gone, gone, alive], "b")
        wait_states(disabled=3, delivered=1)
        assert [row.attempts.count() for row in Callback.objects.filter(url=gone)] == [1, 0, 0]
        owe(stranger.tenant_id, [gone], "c")
        wait_states(delivered=2)
        DisabledUrl.objects.all().delete()
        owe(account.tenant_id, [gone], "d")
        wait_states(delivered=3)


def test_order_per_object(cluster: Cluster, account: Account) -> None:
    """A later one waits while an earlier one is undecided, and goes on when that is refused or given up."""
    cluster.callbacks(settings={**OPEN, "GANTRY_CALLBACK_GIVE_UP_S": "15"})
    with Receivers() as them:
        them.answers |= {"/late": first(3, status(500)), "/bad": status(400), "/dead": status(500)}
        for sequence in (1, 2, 3):
            waits = sequence > 1
            urls = [them.url(f"/late/{sequence}", 1)] if sequence > 1 else [them.url("/late", 1)]
            owe(account.tenant_id, urls, "late", sequence=sequence, waits=waits)
            owe(account.tenant_id, [them.url("/bad" if sequence == 1 else f"/b{sequence}", 2)], "bad",
                sequence=sequence, waits=waits)  # fmt: skip
            owe(account.tenant_id, [them.url("/dead" if sequence == 1 else f"/d{sequence}", 3)], "dead",
                sequence=sequence, waits=waits)  # fmt: skip
        wait_until(lambda: them.at("/b3"), why="what follows a permanent refusal goes on")
        assert Callback.objects.get(url=them.url("/bad", 2)).state == "due", "and it is still tried"
        assert not them.at("/d2"), "the others wait"
        wait_states(delivered=7, dead=2)
        assert len(them.at("/late")) == 4
        assert them.at("/late")[-1].at <= them.at("/late/2")[0].at <= them.at("/late/3")[0].at
        assert them.at("/dead")[-1].at < them.at("/d2")[0].at < them.at("/d3")[0].at
        dead = Callback.objects.get(url=them.url("/dead", 3))
        assert dead.attempts.count() == len(them.at("/dead")) == dead.attempts_made > 2
        assert len(them.at("/bad")) > 2


def test_refused_addresses_are_recorded_and_nothing_is_sent(cluster: Cluster, account: Account) -> None:
    cluster.callbacks(settings={"GANTRY_CALLBACK_GIVE_UP_S": "8"})
    with Receivers() as them:
        urls = [them.url("/x"), "http://169.254.169.254/latest", "http://[::1]:8081/", "http://1.2.3/"]
        owe(account.tenant_id, urls)
        wait_states(dead=len(urls))
        assert not them.got
    for row in Callback.objects.order_by("id"):
        tries = list(row.attempts.values_list("status", "error"))
        assert len(tries) > 1
        assert {code for code, _ in tries} == {None}
        reasons = ("is refused", "write its host")
        assert all(any(reason in error for reason in reasons) for _, error in tries), tries


@pytest.mark.alone
def test_those_that_hang_do_not_delay_others(cluster: Cluster, account: Account) -> None:
    """The 95th percentile of healthy receivers' deliveries stays what it is while 40 others hang for 20 s.

    Threads that wait for those that hang would add seconds in every round; another program on this machine
    does it in some. So one round of three must show that the two figures are alike.
    """
    cluster.callbacks(settings={**OPEN, "GANTRY_CALLBACK_TIMEOUT_S": "20"})
    with Receivers() as them:
        them.answers["/hang"] = hang()

        def late(name: str) -> float:
            """Deliveries one after another every 20 ms; the 95th percentile of what each took, in seconds."""
            owed: dict[str, float] = {}
            for number in range(60):
                owed[f"/{name}/{number}"] = time.monotonic()
                owe(account.tenant_id, [them.url(f"/{name}/{number}", 100 + number % 20)], f"{name}{number}-")
                time.sleep(0.02)
            wait_until(lambda: all(them.at(path) for path in owed), why=f"{name} are delivered")
            return percentile([them.at(path)[0].at - at for path, at in owed.items()], 0.95)

        late("warm")
        seen: list[tuple[float, float]] = []
        while not any(busy < max(3 * calm, calm + 0.5) for calm, busy in seen):
            turn = len(seen)
            assert turn < 3, f"p95 in seconds without and with those that hang: {seen}"
            calm = late(f"calm{turn}")
            before = len(them.at("/hang"))
            hanging = [them.url("/hang", 120 + 40 * turn + number) for number in range(40)]
            owe(account.tenant_id, hanging, f"hang{turn}-")
            wait_until(lambda: len(them.at("/hang")) > before + 10, why="they hang")  # noqa: B023
            seen.append((calm, late(f"busy{turn}")))
            assert sum(them.under_way.values()) >= 10, "some still hang"
            wait_until(
                lambda: CallbackReceiver.objects.filter(slow=True).count() == 40 * len(seen),
                120,
                why="all that hang are slow, and no other",
            )
