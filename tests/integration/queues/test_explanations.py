"""Explanations and simulations: what is said is what then happens."""

from __future__ import annotations

import random
from typing import Any

import pytest
from django.db import connection, transaction

from queues import locks
from queues.admission.look import look_at_all
from queues.entries import moving, services
from queues.entries.explain import explain
from queues.entries.wire import MoveRequest
from queues.models import Entry, OwnerHolding, Queue, TypePolicy, WaitingClass
from queues.operators import simulate
from tests.integration.queues.scene import KIND, entry, pool, running
from tests.support.seeds import seed
from workers.models import Node, Tenant
from workers.tenants import tenancy
from workers.vocabulary.errors import InvalidInput, NotFound

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tenant(db: None) -> Tenant:
    return tenancy.create_tenant("first")


@pytest.fixture
def other(tenant: Tenant) -> Tenant:
    return tenancy.create_tenant("second")


def reason(tenant: Tenant, request_id: str) -> dict[str, Any]:
    found: dict[str, Any] = explain(tenant.pk, KIND, request_id)["reasons"][0]
    return found


def quota(tenant: Tenant, owner: str, vcpu: float) -> None:
    queue = Queue.objects.get(tenant=tenant, type=KIND)
    OwnerHolding.objects.update_or_create(
        queue=queue, owner_id=owner, resource="VCPU", defaults={"quota": int(vcpu * 1000)}
    )


def test_no_pools(tenant: Tenant) -> None:
    entry(tenant, "a", 1)
    look_at_all()
    said = reason(tenant, "a")
    assert (said["level"], said["code"]) == ("misconfigured", "no_pools")
    assert "no capacity is declared" in said["message"]
    assert said["suggestions"] == [
        {
            "action": "host",
            "aggregate": "new",
            "amounts": {"VCPU": 1},
            "text": "an operator adds a host with 1 VCPU in an aggregate of its own",
        }
    ]


def test_never_fits_says_the_largest_there_is(tenant: Tenant) -> None:
    pool("one", 4, 2)
    entry(tenant, "wide", 8)
    entry(tenant, "many", 2, 2, 2, 2)
    look_at_all()
    assert reason(tenant, "wide")["message"] == (
        "no host was ever large enough for 8 VCPU: the most that one has is 4 VCPU"
    )
    assert reason(tenant, "many")["message"] == (
        "no aggregate was ever large enough for all 4 instances: the largest holds 3"
    )
    assert reason(tenant, "many")["level"] == "never_fits"


def test_no_capacity_says_how_many_hosts_meet_each_condition(tenant: Tenant) -> None:
    pool("one", 4, 4, 4)
    pool("two", 4)
    entry(tenant, "first", 3, 3)
    entry(tenant, "second", 4, 4, 4)
    look_at_all()
    said = reason(tenant, "second")
    assert said["level"] == "no_capacity"
    assert said["conditions"] == [
        {"condition": "hosts have 4 VCPU free", "satisfied": 1, "of": 3},
        {"condition": "aggregates can hold all 3 instances", "satisfied": 0, "of": 1},
    ]
    assert said["message"] == ("1 of 3 hosts have 4 VCPU free; 0 of 1 aggregates can hold all 3 instances")
    assert [each["action"] for each in said["suggestions"]] == ["end", "host"]


def test_who_is_ahead_is_named_for_the_own_tenant_only(tenant: Tenant, other: Tenant) -> None:
    """Catches another tenant's ids in an explanation."""
    pool("one", 4)
    entry(other, "secret-running", 4)
    look_at_all()
    entry(other, "secret-waiting", 4)
    entry(tenant, "mine", 4)
    entry(tenant, "next", 4)
    look_at_all()
    found = explain(tenant.pk, KIND, "next")
    assert "secret" not in str(found)
    assert (found["position"], found["ahead"]["own"], found["ahead"]["others_waiting"]) == (2, ["mine"], 1)
    assert found["reasons"][0]["blocked_by"] == ["mine"]
    assert found["running"] == {"own": [], "others": {"VCPU": 4}}
    with pytest.raises(NotFound):
        explain(tenant.pk, KIND, "secret-waiting")


def test_over_quota(tenant: Tenant) -> None:
    pool("one", 8)
    entry(tenant, "a", 2)
    quota(tenant, "x", 3)
    entry(tenant, "b", 2)
    look_at_all()
    assert running() == ["a"]
    said = reason(tenant, "b")
    assert said["message"] == "x holds 2 of its quota of 3 VCPU, and this needs 2"
    assert (said["need"], said["free"], said["quota"]) == (2, 1, 3)
    assert [each["action"] for each in said["suggestions"]] == ["end", "quota"]
    assert said["suggestions"][1] == {
        "action": "quota",
        "resource": "VCPU",
        "amount": 4,
        "text": "an operator raises the quota of x to 4 VCPU",
    }


def test_nobody_looks(tenant: Tenant) -> None:
    pool("one", 8)
    entry(tenant, "a", 2)
    assert reason(tenant, "a")["code"] == "no_worker"
    amounts = dict.fromkeys(("cpu_m_configured", "mem_mb_configured", "cpu_m_total", "mem_mb_total"), 1000)
    Node.objects.create(name="n", detached=False, **amounts)
    assert reason(tenant, "a")["code"] == "evaluating"


def test_a_simulation_changes_nothing_and_names_what_is_wrong(tenant: Tenant) -> None:
    pool("one", 4)
    entry(tenant, "a", 4)
    look_at_all()
    entry(tenant, "b", 4)
    before = list(Entry.objects.order_by("pk").values())
    wish = simulate.parse(
        KIND,
        {
            "submit": [{"request_id": "c", "owner_id": "x", "data": {"instances": [{"VCPU": 1}]}}],
            "move": [{"request_id": "c", "before": "b"}],
            "withdraw": ["a"],
        },
    )
    said = simulate.simulate(tenant.pk, KIND, wish)
    assert said["runs_now"] == ["c"]
    assert [(each["request_id"], each["position"]) for each in said["entries"]] == [("b", 1)]
    assert list(Entry.objects.order_by("pk").values()) == before
    assert WaitingClass.objects.get(waiting__gt=0).waiting == 1
    with pytest.raises(NotFound, match=r"^withdraw\[0\]: "):
        simulate.simulate(tenant.pk, KIND, simulate.parse(KIND, {"withdraw": ["nobody"]}))
    with pytest.raises(InvalidInput, match=r"submit\[0\]\.owner_id is missing"):
        simulate.parse(KIND, {"submit": [{"data": {}}]})


# --- what is said is what then happens ---------------------------------------------------------------------


class World:
    """Random pools, entries, quotas and ends of one tenant, from a seed."""

    def __init__(self, tenant: Tenant, number: int) -> None:
        self.tenant, self.random = tenant, random.Random(f"{seed()}-{number}")
        TypePolicy.objects.create(type=KIND, mode=self.random.choice(["strict", "best_effort"]))
        for name in "pqr"[: self.random.randint(1, 3)]:
            pool(name, *(self.random.choice([2, 4, 8]) for _ in range(self.random.randint(1, 3))))
        for count in range(self.random.randint(4, 14)):
            self.submit(f"e{count}")
        if self.random.random() < 0.5:
            quota(tenant, "y", self.random.randint(1, 8))
        look_at_all()
        for request_id in running():
            if self.random.random() < 0.3:
                services.end(tenant.pk, KIND, request_id)

    def submit(self, request_id: str) -> None:
        entry(self.tenant, request_id, *self.sizes(), owner=self.random.choice("xy"), **self.bound())

    def sizes(self) -> list[int]:
        return [self.random.choice([1, 2, 4, 9])] * self.random.choice([1, 1, 2, 4])

    def bound(self) -> dict[str, str]:
        return {"host_aggregate": self.random.choice("pq")} if self.random.random() < 0.2 else {}

    def queued(self) -> list[str]:
        found = Entry.objects.filter(status="queued").order_by("priority", "tie")
        return list(found.values_list("request_id", flat=True))

    def do(self, suggestion: dict[str, Any], request_id: str) -> None:
        """What a client or an operator does who follows it."""
        who = self.tenant.pk
        match suggestion["action"]:
            case "move_to_front":
                first = Entry.objects.filter(status="queued").order_by("priority").first()
                assert first is not None
                moving.move(who, KIND, request_id, MoveRequest(priority=first.priority - 1))
            case "withdraw" | "end":
                services.end(who, KIND, suggestion["request_id"])
            case "quota":
                owner = Entry.objects.get(request_id=request_id).owner_id
                quota(self.tenant, owner, suggestion["amount"])
            case "host":
                self.add_host(suggestion["aggregate"], suggestion["amounts"]["VCPU"])
            case "unbind":
                data = Entry.objects.get(request_id=request_id)
                sizes = WaitingClass.objects.get(pk=data.waiting_class_id).needs
                vcpus = [size[0][1] / 1000 for count, size in sizes for _ in range(count)]
                place = data.priority
                services.end(who, KIND, request_id)
                entry(self.tenant, f"{request_id}-again", *vcpus, owner=data.owner_id)
                moving.move(who, KIND, f"{request_id}-again", MoveRequest(priority=place))

    def add_host(self, aggregate: str, vcpu: float) -> None:
        with connection.cursor() as cursor, transaction.atomic():
            cursor.execute(
                """SELECT h.name, r.total FROM queues_host h JOIN queues_aggregate a ON a.id = h.aggregate_id
                   JOIN queues_hostresource r ON r.host_id = h.id WHERE a.name = %s ORDER BY h.name""",
                [aggregate],
            )
            hosts = [total / 1000 for _, total in cursor.fetchall()]
        pool(aggregate, *hosts, vcpu)


def assert_suggestions_work(tenant: Tenant, number: int) -> int:
    """Every suggestion for every entry of a random world, followed, has it admitted. How many there were."""
    world, count = World(tenant, number), 0
    for request_id in world.queued():
        for suggestion in explain(tenant.pk, KIND, request_id)["reasons"][0]["suggestions"]:
            count += 1
            with transaction.atomic():
                world.do(suggestion, request_id)
                look_at_all()
                now = set(running())
                transaction.set_rollback(True)
            assert {request_id, f"{request_id}-again"} & now, (number, request_id, suggestion)
    return count


def assert_simulation_comes_true(tenant: Tenant, number: int) -> None:
    """A random simulation, then the same for real: the same run in the same order, the rest keep places."""
    world = World(tenant, number)
    queued = world.queued()
    submitted: list[dict[str, Any]] = [
        {
            "request_id": f"s{count}",
            "owner_id": world.random.choice("xy"),
            "data": {"instances": [{"VCPU": vcpu} for vcpu in world.sizes()], **world.bound()},
        }
        for count in range(world.random.randint(0, 3))
    ]
    names = [*queued, *(each["request_id"] for each in submitted)]
    leaving = [name for name in running() + queued if world.random.random() < 0.2]
    names = [name for name in names if name not in leaving]
    moves: list[dict[str, Any]] = []
    for name in names:
        if world.random.random() < 0.3:
            beside = world.random.choice(names)
            moves.append(
                world.random.choice(
                    [
                        {"request_id": name, "priority": world.random.randint(-5, 5)},
                        {"request_id": name, "before": beside},
                        {"request_id": name, "after": beside},
                    ]
                )
            )
    wish = simulate.parse(KIND, {"submit": submitted, "move": moves, "withdraw": leaving})
    said = simulate.simulate(tenant.pk, KIND, wish)
    already = set(running())
    with transaction.atomic(), connection.cursor() as cursor:
        locks.share(cursor, KIND)
        simulate._apply(tenant.pk, KIND, wish)
    look_at_all()
    assert [name for name in running() if name not in already] == said["runs_now"], number
    places = {name: place for place, name in enumerate(world.queued(), 1)}
    assert {each["request_id"]: each["position"] for each in said["entries"]} == places, number


def worlds(check: Any, count: int) -> None:
    for number in range(count):
        name = f"{check.__name__}-{number}"
        with transaction.atomic():
            check(tenancy.create_tenant(name[-30:]), number)
            transaction.set_rollback(True)


def test_suggestions_work() -> None:
    worlds(assert_suggestions_work, 15)


def test_simulations_come_true() -> None:
    worlds(assert_simulation_comes_true, 30)


@pytest.mark.long
def test_five_hundred_suggestions_work() -> None:
    worlds(assert_suggestions_work, 300)


@pytest.mark.long
def test_a_thousand_simulations_come_true() -> None:
    worlds(assert_simulation_comes_true, 1000)
