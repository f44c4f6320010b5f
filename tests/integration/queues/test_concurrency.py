"""Many clients at once: one order, no number twice, nothing lost, no tie flipped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from queues import needs, pools
from queues.admission.look import look
from queues.models import Entry, Queue, WaitingClass
from tests.contracts.queues.conftest import BODY, Api, admit, data, held, member
from tests.support import seeds
from tests.support.waiting import limit
from workers.tenants import identity

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def api(transactional_db: None) -> Api:
    identity.forget()
    return member("10002", "ann")


def at_once(count: int, work: Callable[[Api, int], None], api: Api) -> None:
    """Run ``work`` in so many threads, each with a client of its own; their errors are the test's."""
    errors: list[BaseException] = []
    ready = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            ready.wait(limit(60))
            work(Api(api.tenant, api.token), number)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit(120))
        assert not thread.is_alive()
    assert not errors, errors[0]


@pytest.mark.parametrize("each", [10, pytest.param(50, marks=pytest.mark.long)])
def test_creates_have_different_numbers_and_their_order(api: Api, each: int) -> None:
    """Twenty clients. Catches a number given twice, and an admission in another order than the list's."""

    def create(mine: Api, number: int) -> None:
        last = 0
        for index in range(each):
            entry = mine.create(f"n{number}-{index}", owner_id=f"o{number % 3}")
            assert entry["Priority"] > last
            last = entry["Priority"]

    at_once(20, create, api)
    listed = data(api.get("/v1/vm/"))
    numbers = [entry["Priority"] for entry in listed]
    assert len(listed) == 20 * each
    assert numbers == sorted(set(numbers))
    assert Queue.objects.get().highest == numbers[-1]
    assert sorted(WaitingClass.objects.values_list("owner_id", "waiting")) == [
        ("o0", 7 * each),
        ("o1", 7 * each),
        ("o2", 6 * each),
    ]
    # Seven run at once; then one after the other ends, whoever it is.
    pools.declare("vm", "a", [pools.HostAmounts("h", dict.fromkeys(needs.VM, 7 * needs.UNIT), {})])
    dice, ran = seeds.dice("admission order"), list[str]()
    while len(ran) < len(listed):
        assert look("vm") == (1 if ran else 7)
        running = api.ids("?status=running")
        ran += [name for name in running if name not in set(ran)]
        data(api.delete(f"/v1/vm/{dice.choice(running)}"))
    assert ran == [entry["RequestID"] for entry in listed]


def test_one_request_id_and_one_callback_are_given_once(api: Api) -> None:
    answers: list[int] = []

    def create(mine: Api, number: int) -> None:
        other = {"callback": f"c{number}"} if number % 2 else {"request_id": f"r{number}"}
        answers.append(mine.post("/v1/vm/", {**BODY, **other}).status_code)

    at_once(8, create, api)
    made = Entry.objects.filter(request_id="d").count(), Entry.objects.filter(callback="abc").count()
    assert made == (1, 1)
    assert sorted(answers) == [200] * 2 + [409] * 6
    assert WaitingClass.objects.get().waiting == 2


@pytest.mark.parametrize("way", ["before", "after", "mean"])
def test_two_hundred_moves_between_the_same_neighbours(api: Api, way: str) -> None:
    for number, name in enumerate(("left", "right")):
        api.create(name)
        api.move(name, priority=number)
    names = [f"n{number}" for number in range(200)]
    for name in names:
        api.create(name)
    ways: dict[str, dict[str, Any]] = {
        "before": {"before": "right"},
        "after": {"after": "left"},
        "mean": {"priority": (0 + 1) // 2},
    }
    to = ways[way]

    def move(mine: Api, number: int) -> None:
        for name in names[number * 20 : number * 20 + 20]:
            mine.move(name, **to)

    at_once(10, move, api)
    listed = data(api.get("/v1/vm/"))
    assert [entry["RequestID"] for entry in (listed[0], listed[-1])] == ["left", "right"]
    found = [entry["RequestID"] for entry in listed[1:-1]]
    assert sorted(found) == sorted(names)
    assert {entry["Priority"] for entry in listed[:-1]} == {0}
    for number in range(10):
        mine = [name for name in found if name in names[number * 20 : number * 20 + 20]]
        own = names[number * 20 : number * 20 + 20]
        assert mine == (own[::-1] if way == "after" else own), "each thread's own moves keep their order"


def test_the_end_of_one_entry_is_given_back_once(api: Api) -> None:
    api.create("d")
    admit("d")
    statuses: list[int] = []

    def end(mine: Api, number: int) -> None:
        statuses.append(mine.delete("/v1/vm/d").status_code)

    at_once(6, end, api)
    assert sorted(statuses) == [200] + [409] * 5
    assert held() == {"VCPU": 0, "Memory": 0, "Disk": 0}
    assert Entry.objects.get().status == "finished"


def test_moves_withdrawals_and_creates_together(api: Api) -> None:
    for number in range(40):
        api.create(f"n{number}")

    def work(mine: Api, number: int) -> None:
        for index in range(number, 40, 8):
            mine.create(f"m{index}")
            mine.move(f"m{index}", priority=-index // 4)
            assert mine.post(f"/v1/vm/m{index}", {"after": f"n{(index + 1) % 40}"}).status_code in (200, 409)
            data(mine.delete(f"/v1/vm/n{index}"))

    at_once(8, work, api)
    listed = data(api.get("/v1/vm/"))
    assert sorted(entry["RequestID"] for entry in listed) == sorted(f"m{index}" for index in range(40))
    assert [entry["Priority"] for entry in listed] == sorted(entry["Priority"] for entry in listed)
    assert WaitingClass.objects.get().waiting == 40
