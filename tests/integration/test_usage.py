"""The usage report: what ended on which day, by family and state, whoever asks and however much there is."""

from __future__ import annotations

import time
from datetime import date, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from tests.integration.conftest import Api, keys
from tests.integration.engine_rows import World
from tests.support.fixtures import Account
from workers import limits, retention, usage
from workers.api.serializers import UsageSerializer
from workers.models import Run, UsageDay
from workers.states import Reason, State


def today() -> date:
    return timezone.now().date()


def sql(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, list(values))


@pytest.mark.django_db
def test_runs_attempts_reserved_resources_and_output_are_added_up() -> None:
    world = World(cpu_m=2000, mem_mb=100)
    node = world.node()
    began = time.monotonic()
    lease = world.claimed(node, retries=1)
    world.started(lease, ago=10)
    world.retry(lease, log_bytes=5)
    sql("UPDATE workers_run SET not_before = NULL")
    (again,) = world.claim(node, lease.run_id)
    world.started(again.lease, ago=20)
    world.finish(again.lease, log_bytes=7)
    failed = world.claimed(node)
    world.finish(failed, State.FAILED, reason=Reason.EXIT_CODE)  # never started: no CPU
    world.cancel(world.submit())
    world.submit()  # waits: not in it

    (found,) = usage.report(world.tenant.pk, today(), today())
    passed = time.monotonic() - began

    assert (found.tenant, found.family) == ("default", "tasks")
    assert found.runs == {"SUCCEEDED": 1, "FAILED": 1, "CANCELLED": 1}
    assert found.attempts == 3
    assert found.log_bytes == 12
    assert found.cpu_s == pytest.approx(60, abs=2 + 2 * passed)
    assert found.mem_mb_s == pytest.approx(3000, abs=100 + 100 * passed)
    assert usage.report(None, today(), today()) == [found]
    yesterday = today() - timedelta(days=1)
    assert usage.report(None, yesterday, yesterday) == []
    # Deleting runs does not rewrite the past, and folding keeps the sum.
    sql("UPDATE workers_usageday SET writer = -writer")
    assert limits.fold(100) > 0
    sql("UPDATE workers_run SET finished_at = now() - interval '999 days' WHERE finished_at IS NOT NULL")
    assert retention.prune_once(100)["runs"] == 3
    assert usage.report(world.tenant.pk, today(), today()) == [found]


def test_everybody_sees_their_own_and_operators_all(
    api: Api, account: Account, stranger: Account, operator: Account
) -> None:
    day = today()
    for who, runs in ((account, 3), (stranger, 5)):
        UsageDay.objects.create(
            tenant_id=who.tenant_id, day=day, family="tasks", state="SUCCEEDED", writer=0, runs=runs
        )
    status, body, _ = api(account, "GET", "/api/v1/usage")
    assert status == 200
    assert set(body[0]) == keys(UsageSerializer)
    assert [(item["tenant"], item["runs"]["succeeded"]) for item in body] == [("default", 3)]
    assert api(account, "GET", f"/api/v1/usage?to={day - timedelta(days=1)}")[1] == []
    assert len(api(account, "GET", f"/api/v1/usage?from={day}&to={day}")[1]) == 1
    assert api(account, "GET", "/api/v1/usage?all_tenants=1")[0] == 403
    everybody = api(operator, "GET", "/api/v1/usage?all_tenants=1")[1]
    assert [item["tenant"] for item in everybody] == ["default", "stranger"]
    for wrong in ("from=2026-02-01&to=2026-01-01", "from=2020-01-01&to=2026-01-01", "from=never", "x=1"):
        assert api(account, "GET", f"/api/v1/usage?{wrong}")[0] == 400, wrong
    assert api(account, "GET", "/api/v1/usage?to=0001-01-02")[0] == 200


@pytest.mark.django_db
def test_days_beyond_the_setting_go(settings: Settings) -> None:
    for days in (10, 12):
        UsageDay.objects.create(
            tenant_id=1, day=today() - timedelta(days=days), family="f", state="S", writer=0, runs=1
        )
    settings.GANTRY_KEEP_USAGE_D = 11
    assert retention.prune_once(10)["usage"] == 1
    assert UsageDay.objects.count() == 1


@pytest.mark.alone
@pytest.mark.django_db
def test_a_year_of_everything_is_read_in_milliseconds() -> None:
    """The report reads days, not runs: here 400 days of 5 families in 3 states by 4 connections."""
    World()
    sql(
        """INSERT INTO workers_usageday (tenant_id, day, family, state, writer, runs)
           SELECT t.id, current_date - d, 'f' || f, s, w, 700
           FROM workers_tenant t, generate_series(0, 399) d, generate_series(1, 5) f,
               unnest(ARRAY['SUCCEEDED', 'FAILED', 'CANCELLED']) s,
               generate_series(1, 4) w"""
    )
    sql("ANALYZE workers_usageday")
    took, once, rows = [], [], []
    for _ in range(5):
        begin = time.perf_counter()
        sql("SELECT count(*), sum(runs) FROM workers_usageday")
        read = time.perf_counter()
        rows = usage.report(None, today() - timedelta(days=399), today())
        took.append(time.perf_counter() - read)
        once.append(read - begin)
    assert sum(sum(row.runs.values()) for row in rows) == 24_000 * 700  # 16.8 million runs
    assert min(took) < max(0.3, 30 * min(once)), (took, once)


@pytest.mark.django_db
def test_the_migration_counts_what_was_there_before(settings: Settings) -> None:
    """The statements of migration 0003 that look back give what the triggers have counted since."""
    world = World(cpu_m=1000)
    node = world.node()
    for _ in range(3):
        lease = world.claimed(node)
        world.started(lease, ago=5)
        world.finish(lease)
    world.submit()
    before = usage.report(None, today(), today())
    from importlib import import_module

    text = import_module("workers.migrations.0003_limits").COUNT
    looks_back = text[text.index("-- What waits already") : text.index("CREATE FUNCTION gantry_audit_stays")]
    sql("TRUNCATE workers_usageday, workers_tenantload")
    sql(looks_back.replace("%", "%%"))
    assert usage.report(None, today(), today()) == before
    with connection.cursor() as cursor:
        assert limits.waiting(cursor, world.tenant.pk) == Run.objects.filter(state="PENDING").count() == 1
