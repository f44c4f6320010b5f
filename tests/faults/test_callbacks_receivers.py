"""Fault 24: receivers that hang, drip, cut, answer 500, redirect, 410, 429, or flood.

What they do costs nobody else anything, every end is told at least once under one webhook-id, and what a
receiver has accepted is not sent again.
"""

from __future__ import annotations

from tests.support.cluster import Cluster, wait_until
from tests.support.engine import submit, wait_final
from tests.support.fixtures import Account
from tests.support.receivers import OPEN, Receivers, drip, drip_body, first, flood, hang, reset, status
from workers.models import Callback, DisabledUrl


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
    cluster.node()
    cluster.callbacks(settings=OPEN)
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
        wait_until(
            lambda: Callback.objects.filter(state="delivered").count() == 2 * len(runs),
            60,
            why=lambda_why(),
        )
        for name, run_id in runs.items():
            rows = list(Callback.objects.filter(run_id=run_id).order_by("sequence"))
            assert [row.event for row in rows] == ["running", "ended"], name
            assert [row.sequence for row in rows] == [1, 2], name
            ids = them.ids(f"/{name}")
            assert set(ids) == {row.message_id for row in rows}, name
            assert ids[-1] == rows[1].message_id, f"{name}: the end came before the start"
            for row in rows:
                statuses = [item.status for item in row.attempts.order_by("id")]
                assert statuses[-1] == 200, (name, statuses)
                assert len(statuses) == row.attempts_made == ids.count(row.message_id), (name, statuses)
            assert all(item.json["taskId"] == run_id for item in them.at(f"/{name}"))
        assert {len(them.ids(f"/{name}")) for name in ways} == {4}
        assert {len(them.ids(f"/{name}")) for name in ("good", "slowbody", "flood")} == {2}
    assert not DisabledUrl.objects.exists()


def lambda_why() -> str:
    return f"all is delivered: {list(Callback.objects.values_list('url', 'state', 'attempts_made'))}"
