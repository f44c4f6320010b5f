"""What is deleted when, in which portions, and what is never touched."""

from __future__ import annotations

import threading
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from pytest_django import Settings

from tests.integration.logs.log_runs import STDOUT, LoggedRun, running, submitted
from tests.support.waiting import limit
from workers import services
from workers.models import Attempt, IdempotencyKey, LogChunk, Node, NodeRequest, Run, RunEvent, Shape, Tenant
from workers.tenants import tenancy
from workers.upkeep import retention
from workers.vocabulary.errors import InvalidInput

pytestmark = pytest.mark.django_db(transaction=True)

NOTHING = dict.fromkeys(
    (
        *("runs", "logs", "idempotency_keys", "node_requests", "shapes", "audit", "usage", "receivers"),
        "run_secrets",
        *("executors", "jobs", "job_secrets"),  # what the jobs family deletes of its own
        *("entries", "entry_classes", "entry_tombstones"),  # and the queues family
        *("transfer_elements", "transfer_jobs"),  # and the workqueue
    ),
    0,
)


@pytest.fixture(autouse=True)
def _from_the_first_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_last_shape", 0)
    monkeypatch.setattr(retention, "_last_owner", (0, ""))
    monkeypatch.setattr(retention, "_last_output", 0)


def sql(statement: str, *values: float | str | list[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, list(values))


def ended(days_ago: float, *, lasted: float = 0.0) -> LoggedRun:
    """A run with output that ended so long ago and was submitted ``lasted`` days before."""
    run = running()
    run.write(b"out", 0)
    run.write(b"put", 3)
    run.finish()
    sql(
        """UPDATE workers_run SET finished_at = now() - %s * interval '1 day',
               created_at = now() - %s * interval '1 day' WHERE id = %s""",
        days_ago,
        days_ago + lasted,
        run.id,
    )
    return run


def old_active(run: LoggedRun) -> LoggedRun:
    sql("UPDATE workers_run SET created_at = now() - interval '999 days' WHERE id = %s", run.id)
    return run


def with_output() -> set[int]:
    return set(LogChunk.objects.values_list("run_id", flat=True))


def runs() -> set[int]:
    return set(Run.objects.values_list("pk", flat=True))


def test_a_round_without_work_deletes_nothing() -> None:
    fresh = ended(1)

    assert retention.prune_once(100) == NOTHING
    assert with_output() == runs() == {fresh.id}


def test_logs_go_before_runs(settings: Settings) -> None:
    settings.GANTRY_KEEP_RUNS_D, settings.GANTRY_KEEP_LOGS_D = 90, 14
    waiting, works = old_active(submitted()), old_active(running())
    works.write(b"still at it", 0)
    gone, silent, fresh = ended(91), ended(15), ended(13)

    counts = retention.prune_once(100)

    assert counts == NOTHING | {"runs": 1, "logs": 4}
    assert runs() == {waiting.id, works.id, silent.id, fresh.id}
    assert with_output() == {works.id, fresh.id}
    assert not Attempt.objects.filter(run_id=gone.id).exists()
    assert not RunEvent.objects.filter(run_id=gone.id).exists()
    assert Attempt.objects.filter(run_id=silent.id).count() == 1
    assert retention.prune_once(100) == NOTHING


def test_a_long_run_keeps_its_log_by_its_end_not_by_its_start(settings: Settings) -> None:
    settings.GANTRY_KEEP_LOGS_D = 14
    long, old = ended(10, lasted=40), ended(20)

    retention.prune_once(100)

    assert with_output() == {long.id}
    assert runs() == {long.id, old.id}


def test_zero_keeps_for_ever(settings: Settings) -> None:
    settings.GANTRY_KEEP_RUNS_D = settings.GANTRY_KEEP_LOGS_D = 0
    run = ended(9999)
    assert retention.prune_once(100) == NOTHING

    settings.GANTRY_KEEP_LOGS_D = 14
    assert retention.prune_once(100)["logs"] == 2
    assert runs() == {run.id}


def test_logs_that_are_kept_longer_than_runs_go_with_them(settings: Settings) -> None:
    settings.GANTRY_KEEP_RUNS_D, settings.GANTRY_KEEP_LOGS_D = 5, 0
    ended(6)
    fresh = ended(4)

    retention.prune_once(100)

    assert runs() == with_output() == {fresh.id}


def test_a_round_is_bounded_and_rounds_finish_the_work(settings: Settings) -> None:
    settings.GANTRY_KEEP_RUNS_D, settings.GANTRY_KEEP_LOGS_D = 90, 14
    for _ in range(7):
        ended(100)
    sql("DELETE FROM workers_logchunk")
    chatty = ended(20)
    for at in range(6, 60):
        chatty.write(b"x", at)

    first = retention.prune_once(3)
    assert (first["runs"], first["logs"]) == (3, 12)
    rounds = list(retention.prune_all(3))

    assert sum(counts.get("runs", 0) for counts in rounds) == 4
    assert sum(counts.get("logs", 0) for counts in rounds) == 44
    assert runs() == {chatty.id}
    assert with_output() == set()


def test_active_runs_in_front_do_not_hide_old_output(settings: Settings) -> None:
    settings.GANTRY_KEEP_LOGS_D = 14
    for _ in range(5):
        old_active(running()).write(b"x", 0)
    ended(20)

    assert retention.prune_once(2)["logs"] == 2


def test_a_run_that_repeats_a_deleted_one_stays(settings: Settings) -> None:
    settings.GANTRY_KEEP_RUNS_D = 90
    old = ended(91)
    again = services.retry(None, old.id)

    retention.prune_once(100)

    assert runs() == {again}


def test_what_somebody_else_prunes_is_skipped_not_waited_for(settings: Settings) -> None:
    settings.GANTRY_KEEP_RUNS_D = 90
    locked, free = ended(92), ended(91)
    ready, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Run.objects.select_for_update().get(pk=locked.id)
            ready.set()
            done.wait(limit(90))
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert ready.wait(limit(60))
        assert retention.prune_once(100)["runs"] == 1
        assert runs() == {locked.id}
    finally:
        done.set()
        holder.join()
    assert retention.prune_once(100)["runs"] == 1
    assert free.id not in runs()


def test_idempotency_keys_live_for_a_day() -> None:
    tenant = Tenant.objects.create(name="t")
    for hours in (23, 25, 26):
        IdempotencyKey.objects.create(
            tenant=tenant, method="POST", path="/x", key=str(hours), body_digest="d"
        )
        sql(
            "UPDATE workers_idempotencykey SET created_at = now() - %s * interval '1 hour' WHERE key = %s",
            hours,
            str(hours),
        )

    assert retention.prune_once(1)["idempotency_keys"] == 1
    assert retention.prune_once(100)["idempotency_keys"] == 1
    assert IdempotencyKey.objects.get().key == "23"


def test_questions_to_nodes_live_for_an_hour() -> None:
    node = Node.objects.create(
        name="n", cpu_m_configured=1, mem_mb_configured=1, cpu_m_total=1, mem_mb_total=1
    )
    for minutes in (59, 61):
        request = NodeRequest.objects.create(node=node, kind="reconcile", answer={})
        sql(
            "UPDATE workers_noderequest SET created_at = now() - %s * interval '1 minute' WHERE id = %s",
            minutes,
            request.pk,
        )

    assert retention.prune_once(100)["node_requests"] == 1
    assert NodeRequest.objects.count() == 1


def test_unused_shapes_go_after_a_day_and_used_ones_stay() -> None:
    used = submitted().row.shape_id
    tenant = Tenant.objects.get()
    young, old = (
        Shape.objects.create(tenant=tenant, kind="process", cpu_m=cpu, mem_mb=1).pk for cpu in (1, 2)
    )
    sql("UPDATE workers_shape SET created_at = now() - interval '25 hours' WHERE id = ANY(%s)", [used, old])

    assert sum(retention.prune_once(1)["shapes"] for _ in range(4)) == 1
    assert set(Shape.objects.values_list("pk", flat=True)) == {used, young}


def test_a_shape_that_a_submission_uses_right_now_stays() -> None:
    shape = submitted().row.shape_id
    sql("DELETE FROM workers_run")
    sql("UPDATE workers_shape SET created_at = now() - interval '25 hours'")
    ready, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM workers_shape WHERE id = %s FOR KEY SHARE", [shape])
            ready.set()
            done.wait(limit(90))
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert ready.wait(limit(60))
        assert retention.prune_once(100)["shapes"] == 0
    finally:
        done.set()
        holder.join()


def of(tenant: str, run: LoggedRun, family: str = "tasks") -> LoggedRun:
    """The same run, as another tenant's or of another family."""
    row, _ = Tenant.objects.get_or_create(name=tenant)
    sql("UPDATE workers_run SET tenant_id = %s, family = %s WHERE id = %s", row.pk, family, run.id)
    return run


def keep(tenant: str, **times: object) -> None:
    Tenant.objects.get_or_create(name=tenant)
    tenancy.update_tenant(tenant, retention=times)


def test_a_tenant_and_a_family_have_times_of_their_own(settings: Settings) -> None:
    settings.GANTRY_KEEP_RUNS_D, settings.GANTRY_KEEP_LOGS_D = 90, 14
    settings.GANTRY_FAMILIES = {"tasks": "tasks_api.wire", "jobs": "tasks_api.wire"}
    keep("brief", runs_d=5, logs_d=2, families={"jobs": {"runs_d": 20}})
    keep("long", runs_d=0, logs_d=0, families={"jobs": {"logs_d": 3}})
    long = {days: of("long", ended(days)) for days in (999, 15)}
    usual = {91: ended(91)}
    briefs_jobs = {days: of("brief", ended(days), "jobs") for days in (21, 6)}
    usual[15] = ended(15)
    longs_jobs = of("long", ended(4), "jobs")
    brief = {days: of("brief", ended(days)) for days in (6, 3, 1)}
    usual[1] = ended(1)

    retention.prune_once(100)

    kept = [usual[1], usual[15], brief[1], brief[3], briefs_jobs[6], long[15], long[999], longs_jobs]
    assert runs() == {run.id for run in kept}
    assert with_output() == {run.id for run in (usual[1], brief[1], long[15], long[999])}
    assert retention.prune_once(100) == NOTHING


def test_what_is_kept_long_does_not_hide_what_is_to_go(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output that is kept for years is walked over in portions; what lies behind it still goes."""
    settings.GANTRY_KEEP_LOGS_D = 14
    monkeypatch.setattr(retention, "_WALK", 4)
    monkeypatch.setattr(retention, "_OWNERS", 1)
    keep("long", runs_d=0, logs_d=0)
    for _ in range(7):
        of("long", ended(200))
    ended(20)
    ended(100)

    first = retention.prune_once(2)
    later = [retention.prune_once(2) for _ in range(6)]

    assert first["logs"] == 0, "the walk stopped in the middle"
    assert sum(counts["logs"] for counts in later) == 4
    assert first["runs"] + sum(counts["runs"] for counts in later) == 1
    assert Run.objects.count() == 8


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"days": 1}, "has no key 'days'"),
        ({"runs_d": -1}, "whole number of days"),
        ({"logs_d": "7"}, "whole number of days"),
        ({"families": {"nobody": {}}}, "no family 'nobody'"),
        ({"families": {"tasks": {"families": {}}}}, "families.tasks has no key"),
        ({"families": []}, "must be an object"),
        ([], "must be an object"),
    ],
)
def test_wrong_times_are_refused(wrong: object, says: str) -> None:
    Tenant.objects.create(name="t")
    with pytest.raises(InvalidInput, match=says) as caught:
        tenancy.update_tenant("t", retention=wrong)
    assert caught.value.field == "retention"
    assert Tenant.objects.get(name="t").retention == {}


def test_the_command_says_what_it_does(settings: Settings) -> None:
    settings.GANTRY_KEEP_RUNS_D, settings.GANTRY_KEEP_LOGS_D = 90, 0
    for _ in range(3):
        ended(91)
    out = StringIO()

    call_command("prune", "--batch", "2", stdout=out)

    assert out.getvalue() == (
        "Ended runs are kept 90 days (GANTRY_KEEP_RUNS_D), their logs for ever (GANTRY_KEEP_LOGS_D).\n"
        "Deleted: 3 runs, 6 log chunks.\n"
    )
    assert runs() == with_output() == set()
    out.truncate(0)
    call_command("prune", stdout=out)
    assert "Deleted: nothing." in out.getvalue()


def test_the_order_of_streams_and_attempts_does_not_matter(settings: Settings) -> None:
    settings.GANTRY_KEEP_LOGS_D = 14
    run = running(retries=1)
    run.write(b"first", 0)
    run.try_again()
    run.claim().write(b"second", 0, STDOUT)
    run.finish()
    sql(
        """UPDATE workers_run SET finished_at = now() - interval '15 days',
               created_at = now() - interval '16 days'"""
    )

    assert retention.prune_once(100)["logs"] == 2
    assert with_output() == set()
