"""Estimates from what is stored: told after submission, learned from, explained, published."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection

from queues.admission.look import look
from queues.duty import ESTIMATING
from queues.entries import services
from queues.entries.explain import explain
from queues.estimates import ledger, service
from queues.models import Calibration, Entry, Told
from tests.integration.queues.scene import KIND, entry, pool
from tests.support.waiting import wait_until
from workers.models import Tenant
from workers.tenants import tenancy

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round has time for all, however busy the machine is."""
    monkeypatch.setattr(service, "_ROUND_S", 60.0)


@pytest.fixture
def tenant(db: None) -> Tenant:
    return tenancy.create_tenant("first")


def later(seconds: float) -> None:
    """Let so much time have passed."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE queues_entry SET created_at = created_at - %(s)s * interval '1 s',
                   admitted_at = admitted_at - %(s)s * interval '1 s',
                   ended_at = ended_at - %(s)s * interval '1 s'""",
            {"s": seconds},
        )
        cursor.execute(
            """UPDATE queues_told SET made_at = made_at - %(s)s * interval '1 s',
                   admitted_at = admitted_at - %(s)s * interval '1 s'""",
            {"s": seconds},
        )


def history(tenant: Tenant, count: int, seconds: float) -> None:
    """So many entries that have run for so long, one by one."""
    for number in range(count):
        entry(tenant, f"past{number}", 1)
        look(KIND)
        later(seconds)
        services.end(tenant.pk, KIND, f"past{number}")


def estimate(tenant: Tenant, request_id: str) -> dict[str, Any]:
    found: dict[str, Any] = explain(tenant.pk, KIND, request_id)["estimate"]
    return found


def test_from_no_history_to_an_estimate(tenant: Tenant) -> None:
    """Catches: an age or a booking that is not read, another order than admission's."""
    pool("a", 1)
    entry(tenant, "first", 1)
    look(KIND)
    entry(tenant, "next", 1)
    assert "too few entries of this type have ended to tell from: 0" in estimate(tenant, "next")["unknown"]
    services.end(tenant.pk, KIND, "first")
    services.end(tenant.pk, KIND, "next")
    history(tenant, 12, 60.0)
    entry(tenant, "now", 1)
    look(KIND)
    later(20)
    entry(tenant, "x", 1)
    entry(tenant, "y", 1)
    found = estimate(tenant, "y")
    assert (found["method"], found["samples"]) == ("forward", 13)
    assert found["p50_s"] == pytest.approx(100, abs=5)
    assert found["p90_s"] >= found["p50_s"]
    assert explain(tenant.pk, KIND, "now")["estimate"] is None


def test_declared_durations_are_enough(tenant: Tenant) -> None:
    pool("a", 1)
    entry(tenant, "runs", 1, duration=100)
    look(KIND)
    entry(tenant, "x", 1, duration=50)
    entry(tenant, "y", 1)
    assert estimate(tenant, "x")["p50_s"] == pytest.approx(100, abs=5)
    assert estimate(tenant, "y")["p50_s"] == pytest.approx(150, abs=5)


def test_what_never_fits_and_what_is_alone(tenant: Tenant) -> None:
    pool("a", 1)
    entry(tenant, "large", 2)
    look(KIND)
    assert estimate(tenant, "large") == {"unknown": "because nothing that there is could ever hold it"}
    entry(tenant, "small", 1)
    assert estimate(tenant, "small")["p90_s"] == 2.0


def test_told_learned_and_published(tenant: Tenant) -> None:
    """Catches: an outcome learned twice, one that is withdrawn learned, a miss learned only when admitted."""
    pool("a", 1)
    history(tenant, 12, 60.0)
    assert service.tell() == {"learned": 0, "told": 0}, "what does not wait is told nothing"
    entry(tenant, "now", 1)
    look(KIND)
    ids = [entry(tenant, name, 1) for name in ("x", "y", "z")]
    assert service.tell() == {"learned": 0, "told": 3}
    assert service.tell() == {"learned": 0, "told": 0}
    assert list(Told.objects.order_by("entry_id").values_list("entry_id", flat=True)) == ids
    assert service.published(KIND) == {
        "coverage_p90": None, "median_error": None, "samples": 0, "method": None,
    }  # fmt: skip
    later(60)
    services.end(tenant.pk, KIND, "now")
    look(KIND)
    assert service.tell()["learned"] == 1
    assert Calibration.objects.get().tilt < 0
    published = service.published(KIND)
    assert (published["coverage_p90"], published["samples"], published["method"]) == (1.0, 1, "forward")
    later(300)
    assert service.tell()["learned"] == 2, "both wait longer than they were told"
    missed = Calibration.objects.get().tilt
    assert missed > 0
    services.end(tenant.pk, KIND, "x")
    look(KIND)
    services.end(tenant.pk, KIND, "z")
    assert service.tell()["learned"] == 1
    assert Calibration.objects.get().tilt == missed
    assert service.accuracy(KIND)["samples"] == 2
    assert service.accuracy(KIND)["coverage_p90"] == 0.5
    assert set(Told.objects.values_list("entry_id", flat=True)) == set(ids[:2])


def test_one_round_at_a_time_and_bounded(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    pool("a", 1)
    history(tenant, 12, 60.0)
    for number in range(30):
        entry(tenant, f"w{number}", 1)
    look(KIND)
    assert service.tell()["told"] == 8
    newest = Entry.objects.order_by("-pk").values_list("pk", flat=True)[:8]
    assert set(Told.objects.values_list("entry_id", flat=True)) == set(newest)
    monkeypatch.setattr(ledger, "OPEN", 8)
    entry(tenant, "one-more", 1)
    assert service.tell() == {"learned": 0, "told": 0}, "as many as may be open"


def test_the_duty_waits_for_nothing(tenant: Tenant) -> None:
    pool("a", 1)
    history(tenant, 12, 60.0)
    entry(tenant, "now", 1)
    look(KIND)
    entry(tenant, "x", 1)
    assert ESTIMATING.look() == {}
    wait_until(Told.objects.exists, 20)
    for each in threading.enumerate():
        if each.name == "queue-estimates":
            each.join(20)


def test_outcomes_are_kept_up_to_a_number(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "KEPT", 3)
    pool("a", 1)
    history(tenant, 12, 60.0)
    for number in range(6):
        entry(tenant, f"runs{number}", 1)
        entry(tenant, f"waits{number}", 1)
        look(KIND)
        service.tell()
        services.end(tenant.pk, KIND, f"runs{number}")
        look(KIND)
        service.tell()
        services.end(tenant.pk, KIND, f"waits{number}")
    assert Told.objects.count() <= 4


def test_what_ran_is_read_with_what_it_holds_elsewhere(tenant: Tenant) -> None:
    """An external provider counts it: our bookings have ended, its end frees hosts all the same."""
    pool("a", 1)
    entry(tenant, "runs", 1, duration=100)
    look(KIND)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE queues_hostresource SET outside = held, held = 0 WHERE held > 0")
        cursor.execute("DELETE FROM queues_booking")
    entry(tenant, "x", 1)
    assert estimate(tenant, "x")["p50_s"] == pytest.approx(100, abs=5)
