"""Everything ends: a job goes with its run, as its tenant's retention of the family says; its key sooner."""

from __future__ import annotations

from django.db import connection

from jobs.models import RuntaskJob
from tests.contracts.runtask.conftest import Api, Stage, _keys, api, asked, ok
from workers.models import Run, Secret
from workers.tenants import tenancy
from workers.upkeep import retention

__all__ = ["_keys", "api", "asked"]


def age(days: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE workers_run SET finished_at = now() - %s * interval '1 day'", [days])


def prune() -> None:
    for _ in retention.prune_all(100):
        pass


def test_a_job_goes_with_its_run(api: Api) -> None:
    stage = Stage()
    job_id, waits = api.run(), None
    stage.done(job_id, b"out")
    age(89)
    prune()
    assert api.job(job_id)["job_done"] is True
    age(91)
    waits = api.run()
    prune()
    assert list(RuntaskJob.objects.values_list("pk", flat=True)) == [int(waits)]
    assert Run.objects.count() == 1
    assert ok(api.get("/listjobs/"))["jobs"] == [waits]


def test_the_retention_of_the_family(api: Api) -> None:
    tenancy.update_tenant("10002", retention={"families": {"runtask": {"runs_d": 3}}})
    job_id = api.run()
    Stage().done(job_id)
    age(4)
    prune()
    assert not RuntaskJob.objects.exists()


def test_the_key_goes_when_the_job_has_ended(api: Api) -> None:
    stage = Stage()
    done, cancelled, waits = (api.run() for _ in range(3))
    stage.done(done)
    ok(api.form("/canceljob/", {"job_id": cancelled}))
    prune()
    assert [secret.run_id for secret in Secret.objects.all()] == [Stage.run_of(waits).pk]
