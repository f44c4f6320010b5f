"""Fault 24: receivers that hang, drip, cut, answer 500, redirect, 410, 429, or flood.

What they do costs nobody else anything, every end is told at least once under one webhook-id, and what a
receiver has accepted is not sent again.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.db import connection

from tests.support.cluster import Cluster
from tests.support.engine import submit, wait_final
from tests.support.fixtures import Account
from tests.support.receivers import OPEN, Receivers, drip, drip_body, first, flood, hang, reset, status
from tests.support.waiting import wait_until
from workers.callbacks import outbox, signing
from workers.models import Callback, CallbackReceiver, DisabledUrl


def states() -> list[Any]:
    return list(Callback.objects.order_by("id").values_list("url", "event", "state", "attempts_made"))


def wait_states(timeout_s: float = 90.0, **counts: int) -> None:
    """Wait until exactly so many callbacks are in each of these states."""
    wait_until(
        lambda: all(Callback.objects.filter(state=name).count() == n for name, n in counts.items()),
        timeout_s,
        why=f"callbacks are {counts}",
        see=lambda: [found for found in states() if found[2] not in counts] or states(),
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
    cluster.callbacks(settings={**OPEN, "GANTRY_CALLBACK_TIMEOUT_S": "8"})
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
    cluster.callbacks(settings={**OPEN, "GANTRY_CALLBACK_GIVE_UP_S": "30"})
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
    cluster.callbacks(settings={"GANTRY_CALLBACK_GIVE_UP_S": "20"})
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


def test_those_that_hang_do_not_delay_others(cluster: Cluster, account: Account) -> None:
    """Forty hang, as they would for an hour: whoever waited for one of them would wait as long.

    (What they cost the others is measured: mark 15.)
    """
    hanging, healthy = 40, 20
    cluster.callbacks(settings={**OPEN, "GANTRY_CALLBACK_TIMEOUT_S": "3600"})
    with Receivers() as them:
        them.answers["/hang"] = hang()

        def delivered(name: str, first_host: int) -> None:
            """Three for each of so many receivers come."""
            paths = [f"/{name}/{number}" for number in range(3 * healthy)]
            urls = [them.url(path, first_host + number % healthy) for number, path in enumerate(paths)]
            owe(account.tenant_id, urls, f"{name}-")
            wait_until(
                lambda: all(them.at(path) for path in paths),
                why=f"{name} are delivered",
                see=lambda: [path for path in paths if not them.at(path)],
            )

        delivered("before", 100)
        wait_states(delivered=3 * healthy)
        owe(account.tenant_id, [them.url("/hang", 200 + number) for number in range(hanging)], "hang-")
        wait_until(lambda: len(them.at("/hang")) == hanging, why="all of them hang", see=them.waiting)
        delivered("known", 100)
        delivered("new", 300)
        wait_states(delivered=9 * healthy)
        assert them.waiting() == hanging, "they hang to the end, else this proves nothing"


def test_those_that_hang_are_kept_apart(cluster: Cluster, account: Account) -> None:
    """Catches a receiver that runs into the time limit again and again among those that answer."""
    cluster.callbacks(settings={**OPEN, "GANTRY_CALLBACK_TIMEOUT_S": "8"})
    with Receivers() as them:
        them.answers["/hang"] = hang()
        owe(account.tenant_id, [them.url("/hang", 200 + number) for number in range(40)], "hang-")
        owe(account.tenant_id, [them.url("/good", 300 + number) for number in range(20)], "good-")
        wait_until(
            lambda: CallbackReceiver.objects.filter(slow=True).count() == 40,
            120,
            why="all that hang are slow, and no other",
            see=lambda: list(CallbackReceiver.objects.values_list("address", "slow", "failures")),
        )
        wait_states(delivered=20, due=40)
