"""Postgres is frozen: it keeps every connection and answers none. What needs it is told so, nobody hangs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.support.cluster import Cluster
from tests.support.fixtures import Account
from tests.support.outages import postgres_silent
from tests.support.waiting import limit, wait_until

PATHS = (
    "/readyz",
    "/v1/tasks?taskIds=1",
    "/api/jobs",
    "/api/v1/runs",
    "/listjobs/",
    "/workqueue/api/v1.0/jobs",
)


def test_what_needs_a_frozen_database_is_unavailable(cluster: Cluster, account: Account) -> None:
    """Catches an API whose every thread waits for a server that never answers: the answers come while it is
    frozen."""
    api = cluster.api()
    headers = {"X-Token": account.token}

    def get(path: str) -> httpx.Response:
        return httpx.get(f"{api.url}{path}", headers=headers, timeout=limit(30))

    for path in PATHS:  # each has a connection of its own by now
        assert get(path).status_code < 500 or path == "/readyz", path
    with postgres_silent(), ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(get, PATHS * 2))
    assert [(str(each.url), each.status_code) for each in answers if each.status_code != 503] == []
    assert "database" in answers[0].text
    assert all(
        int(each.headers["Retry-After"]) > 0 for each in answers if not each.url.path.startswith("/readyz")
    )
    wait_until(lambda: get("/api/v1/runs").status_code == 200, why="it answers again")
