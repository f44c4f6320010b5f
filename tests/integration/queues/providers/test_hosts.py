"""Hosts of external providers: places for pods, and those that are gone for good."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from queues import pools
from queues.admission.look import look
from queues.entries import services, wire
from queues.models import Aggregate, Booking, Host, HostResource, OwnerHolding, WaitingClass
from queues.operators import services as operators
from queues.operators.parsing import PolicyRequest
from tests.integration.queues.providers.conftest import Line
from tests.support.capacity import Kubernetes, Subject
from workers.models import Tenant

pytestmark = [
    pytest.mark.daemons,
    pytest.mark.xdist_group("openstack"),
    pytest.mark.django_db(transaction=True),
]
external = pytest.mark.parametrize("subject", ["placement", "kubernetes"], indirect=True)


@pytest.mark.parametrize("subject", ["kubernetes"], indirect=True)
def test_each_instance_takes_a_place_for_a_pod(subject: Subject, line: Line) -> None:
    """Catches: admitted to a node that has processors but no place for one more pod, or too few for all."""
    assert isinstance(subject, Kubernetes)
    subject.server.node("a", labels={"zone": "one"}, cpu="8", memory="64Gi", pods="3")
    subject.use("a", 1)
    subject.policy()
    assert subject.ask()
    line.submit("gang", 1, 1, 1)
    line.submit("one", 1)
    assert line.look() == 0
    assert "0 of 1 aggregates can hold all 3 instances" in line.why("gang")[1]
    services.end(line.tenant.pk, subject.kind, "gang")
    line.submit("two", 1)
    line.submit("three", 1)
    assert line.look() == 2
    assert line.running() == ["one", "two"]
    held = HostResource.objects.get(name="pods")
    assert (held.total, held.outside, held.held) == (3000, 1000, 2000)
    assert "0 of 1 hosts have 1 pods free" in line.why("three")[1]
    services.end(line.tenant.pk, subject.kind, "one")
    assert line.look() == 1
    assert OwnerHolding.objects.get(resource="pods").held == 2000


def test_what_waits_asks_for_what_its_new_provider_wants(db: None) -> None:
    """Catches: entries submitted before their type had the provider, admitted to nodes full of pods; and the
    other way round, which wait for ever for pods that declared hosts do not have."""
    tenant = Tenant.objects.get_or_create(name="default")[0]

    def submit(name: str) -> None:
        body = {
            "request_id": name,
            "owner_id": "x",
            "callback": f"urn:{name}",
            "data": {"pods": [{"cpu": 1}] * 2},
        }
        services.create(tenant.pk, "kube", wire.parse_entry("kube", body))

    def waiting() -> list[tuple[int, str]]:
        found = WaitingClass.objects.filter(waiting__gt=0).values_list("waiting", "needs")
        return [(count, json.dumps(need)) for count, need in found]

    submit("before")
    operators.set_policy(
        "kube", PolicyRequest(None, "kubernetes", {"server": "https://10.0.0.1", "secret": "t"}), tenant.pk
    )
    submit("after")
    assert waiting() == [(2, '[[2, [["cpu", 1000], ["pods", 1000]]]]')]
    operators.set_policy("kube", PolicyRequest(None, "pools", {}), tenant.pk)
    assert waiting() == [(2, '[[2, [["cpu", 1000]]]]')]
    pools.declare("kube", "declared", [pools.HostAmounts("d", {"cpu": 4000}, {})])
    assert look("kube") == 2


@external
def test_hosts_that_are_gone_for_good_are_deleted(subject: Subject, line: Line) -> None:
    """Catches: a cluster that names its nodes anew and leaves thousands behind; a host deleted with what runs
    there, or while it is only away for a moment."""
    for aggregate, name in (("one", "a"), ("one", "b"), ("two", "c"), ("two", "d")):
        subject.host(aggregate, name, 4 if name == "b" else 8)
    subject.policy()
    assert subject.ask()
    entry = line.submit("runs", 4)
    assert line.look() == 1
    assert Booking.objects.filter(resource__host__name="b").exists()
    for name in ("b", "c", "d"):
        subject.forget(name)
    assert subject.ask()
    assert {each.name for each in Host.objects.all()} == {"a", "b", "c", "d"}, "they may come back"
    long_ago = timezone.now() - timedelta(days=2)
    Host.objects.filter(name__in="bc").update(removed_at=long_ago)
    Aggregate.objects.filter(name="two").update(removed_at=long_ago)
    assert subject.ask()
    assert {each.name for each in Host.objects.all()} == {"a", "b", "d"}, "something is held on b"
    assert not HostResource.objects.filter(host__name="c").exists()
    line.finish(entry)
    Host.objects.filter(name="d").update(removed_at=long_ago)
    assert subject.ask()
    assert {each.name for each in Host.objects.all()} == {"a"}
    assert {each.name for each in Aggregate.objects.all()} == {"one"}
    subject.host("two", "c", 8)
    assert subject.ask()
    assert subject.cpus() == {"one": {"a": (8, 0)}, "two": {"c": (8, 0)}}
