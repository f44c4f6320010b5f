"""/healthz, /readyz and /metrics, with everything up and with parts of it down."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from config.http import health
from tests.contracts.tasks.conftest import Stage
from tests.integration.conftest import Api
from tests.support.engine import submit
from tests.support.fixtures import Account
from tests.support.waiting import wait_until
from workers.models import Node
from workers.vocabulary.states import State


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer of the broker is remembered from another test."""
    monkeypatch.setattr(health, "_client", None)
    monkeypatch.setattr(health, "_broker", (0.0, ""))
    monkeypatch.setattr(health, "_written", (0.0, ""))


def test_health_asks_nobody(client: Client) -> None:
    """Without the db fixture any query would fail the test."""
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_ready_with_everything_up(client: Client, stage: Stage) -> None:
    Node.objects.create(
        name="gone", cpu_m_configured=1, mem_mb_configured=1, cpu_m_total=1, mem_mb_total=1, detached=True
    )
    # The broker has 0.3 s to answer: a busy machine may be later than that, once.
    answer = wait_until(lambda: (found := client.get("/readyz")).json()["broker"] == "ok" and found)
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "database": "ok",
        "broker": "ok",
        "nodes": {"ready": 1, "draining": 0, "silent": 1},
        "warnings": [],
    }
    Node.objects.filter(name="node-a").update(mode="draining")
    body = client.get("/readyz").json()
    assert body["nodes"] == {"ready": 0, "draining": 1, "silent": 1}
    assert "no node takes work now" in body["warnings"][0]


def test_what_is_wrong_with_nodes_is_a_warning_that_names_none(client: Client, stage: Stage) -> None:
    """Catches "ready" without a word beside a dead engine, a launcher that stands still, a silent node."""

    def told() -> list[str]:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        assert "node-a" not in answer.content.decode()
        return [str(item) for item in answer.json()["warnings"]]

    node = Node.objects.filter(name="node-a")
    node.update(troubles={"container": "no engine at /run/x", "exec": "no engine at /run/x"})
    where = ": /api/v1/nodes says which, and why"
    assert told() == [f"1 node takes no work of some kinds (of container, exec){where}"]
    node.update(trouble="disk full", troubles={"container": "disk full"})
    assert told()[0] == f"1 node takes no work by itself{where}"
    node.update(heartbeat_at=timezone.now() - timedelta(seconds=300))
    assert told() == [
        f"1 node is silent without having been stopped{where}",
        "no node takes work now: what is submitted waits",
    ]
    node.update(mode="removed")
    assert not any("silent" in item for item in told())


def test_a_database_that_can_only_be_read_is_503(client: Client, db: None) -> None:
    """Catches "ready" where every change is refused: a standby."""
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["database"].startswith("read-only: ")


def test_warnings_of_the_settings_are_shown_without_their_values(
    client: Client, stage: Stage, settings: Any
) -> None:
    settings.GANTRY_TRUSTED_NETWORKS = ["203.0.113.0/24=default"]
    settings.GANTRY_SECRET_KEYS = []
    answer = client.get("/readyz")
    assert answer.status_code == 200
    told = " ".join(answer.json()["warnings"])
    assert "GANTRY_TRUSTED_NETWORKS" in told
    assert "GANTRY_SECRET_KEYS" in told
    assert "203.0.113" not in told


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "redis://192.0.2.1:6379/0", "unix:///nowhere/redis.sock?db=0"]
)
def test_a_broker_that_is_down_or_silent_is_told_and_is_no_reason_to_be_unready(
    client: Client, db: None, settings: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once, and waited for no longer than a moment."""
    settings.REDIS_URL = url
    asked: list[redis.Redis] = []
    ping = redis.Redis.ping

    def once(self: redis.Redis) -> Any:
        asked.append(self)
        return ping(self)

    monkeypatch.setattr(redis.Redis, "ping", once)
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["broker"].startswith("down: ")
    (broker,) = asked
    given = broker.connection_pool.connection_kwargs
    assert (given["socket_timeout"], given["socket_connect_timeout"]) == (health.PING_S, health.PING_S)
    assert (given.get("retry"), given["retry_on_timeout"]) == (None, False)
    assert health.PING_S <= 0.5


def test_the_answer_of_the_broker_is_kept_for_a_moment(
    client: Client, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ping(self: redis.Redis) -> bool:
        asked.append(self)
        return True

    monkeypatch.setattr(redis.Redis, "ping", ping)
    monkeypatch.setattr(health, "PING_KEPT_S", 600.0)
    for _ in range(20):
        assert client.get("/readyz").json()["broker"] == "ok"
    assert len(asked) == 1
    monkeypatch.setattr(health, "_broker", (0.0, ""))  # ten minutes later
    assert client.get("/readyz").json()["broker"] == "ok"
    assert len(asked) == 2


def test_a_database_that_is_down_is_503_and_names_no_host(
    client: Client, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object, **__: object) -> None:
        raise OperationalError('connection to server at "10.0.0.9", user "gantry" failed')

    with monkeypatch.context() as patched:
        patched.setattr(connection, "cursor", down)
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["status"] == "not ready"
    assert answer.json()["database"].startswith("down")
    assert b"10.0.0.9" not in answer.content
    assert client.get("/healthz").status_code == 200


def test_missing_migrations_are_503_and_say_what_to_do(
    client: Client, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_migrated", False)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'workers'")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "manage.py migrate" in answer.json()["database"]


def test_metrics(api: Api, account: Account, operator: Account, stage: Stage) -> None:
    first, second, third = (submit(account.tenant_id, "true", cpu=1) for _ in range(3))
    stage.start(second)
    stage.end(third, State.SUCCEEDED)
    assert api(account, "GET", "/metrics")[0] == 403
    api(operator, "GET", "/v1/tasks?taskIds=1")
    response = Client().get("/metrics", headers=operator.headers)
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=0.0.4")
    text = response.content.decode()
    for line in (
        'gantry_runs{family="tasks",state="pending"} 1.0',
        'gantry_runs{family="tasks",state="running"} 1.0',
        'gantry_node_cpus{node="node-a"} 64.0',
        'gantry_node_cpus_used{node="node-a"} 1.0',
        'gantry_node_memory_used_bytes{node="node-a"} ',
        'gantry_node_runs{node="node-a"} 1.0',
        'gantry_node_takes_work{node="node-a"} 1.0',
    ):
        assert line in text, line
    assert re.search(r'gantry_oldest_pending_seconds\{family="tasks"\} [\d.e-]+', text)
    assert re.search(r'gantry_http_requests_total\{family="tasks",status="2xx"\} [1-9]', text)
    assert re.search(r'gantry_http_requests_total\{family="api",status="4xx"\} [1-9]', text)
    assert "default" not in text, "no label names a tenant"
    assert first


def test_metrics_read_no_finished_run(api: Api, operator: Account, stage: Stage) -> None:
    """The plans use the indexes of what has not ended; a table full of ended runs costs nothing."""
    run_id = submit(operator.tenant_id, "true")
    stage.end(run_id, State.SUCCEEDED)
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO workers_run (tenant_id, family, kind, name, owner_id, shape_id, spec, priority,
                   rank, state, retries_left, grace_s, finished_at)
               SELECT tenant_id, family, kind, name, owner_id, shape_id, spec, priority, rank,
                   state, 0, 10, now()
                 FROM workers_run, generate_series(1, 20000) WHERE id = %s""",
            [run_id],
        )
        cursor.execute("ANALYZE workers_run")
    with CaptureQueriesContext(connection) as queries:
        Client().get("/metrics", headers=operator.headers)
    asked = [query["sql"] for query in queries if "workers_run" in query["sql"]]
    assert len(asked) == 2
    for sql in asked:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
            plan = str(cursor.fetchone()[0])
        assert "Seq Scan" not in plan, plan
