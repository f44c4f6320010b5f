"""Moves: numbers, before and after, what is refused and that nothing changes then. Page 50, "Priority"."""

from __future__ import annotations

import json
from typing import Any

import pytest

from queues import order
from queues.models import Entry, Queue
from tests.contracts.queues.conftest import Api, admit, data, error

MOST = 2**53 - 1


def three(api: Api) -> None:
    """a, b, c with the numbers 10, 20, 30."""
    for number, name in enumerate("abc", 1):
        api.create(name)
        api.move(name, priority=10 * number)


def numbers(api: Api) -> list[tuple[str, int]]:
    return [(entry["RequestID"], entry["Priority"]) for entry in data(api.get("/v1/vm/"))]


def everything() -> list[Any]:
    return list(Entry.objects.order_by("id").values())


def test_first_come_first_served(api: Api) -> None:
    for name in "dcba":
        api.create(name)
    found = numbers(api)
    assert [name for name, _ in found] == list("dcba")
    assert len({number for _, number in found}) == 4


def test_front_back_and_between_as_the_seed_computes_them(api: Api) -> None:
    three(api)
    api.move("c", priority=10 - 1)
    assert api.ids() == list("cab")
    api.move("c", priority=20 + 1)
    assert api.ids() == list("abc")
    api.move("c", priority=(10 + 20) // 2)
    assert numbers(api) == [("a", 10), ("c", 15), ("b", 20)]


def test_a_move_answers_nothing_and_changes_updated_at(api: Api) -> None:
    three(api)
    before = api.entry("a")
    assert data(api.post("/v1/vm/a", {"priority": 83334})) == {}
    after = api.entry("a")
    assert after["UpdatedAt"] > before["UpdatedAt"]
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {"Priority", "UpdatedAt"}


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("3.7", 3),
        ("-0.5", -1),
        ("5.0", 5),
        ("-0.0", 0),
        ("1e3", 1000),
        (str(MOST), MOST),
        (str(-MOST), -MOST),
        ("0", 0),
    ],
)
def test_numbers(api: Api, sent: str, shown: int) -> None:
    api.create("a")
    answer = api.send("POST", "/v1/vm/a", f'{{"priority": {sent}}}', "application/json")
    assert data(answer) == {}
    assert api.entry("a")["Priority"] == shown


@pytest.mark.parametrize(
    "sent",
    [
        *(str(MOST + 1), str(-MOST - 1), "1e300", "-1e300", "1e999", "NaN", "Infinity", "9" * 400),
        *('"5"', '""', "true", "false", "[5]", "{}", f"{MOST}.9"),
    ],
)
def test_numbers_that_are_refused(api: Api, sent: str) -> None:
    api.create("a")
    was = everything()
    error(api.send("POST", "/v1/vm/a", f'{{"priority": {sent}}}', "application/json"), 400)
    assert everything() == was


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"priority": None},
        {"priority": 1, "before": "b"},
        {"before": "b", "after": "c"},
        {"priority": 1, "before": "b", "after": "c"},
        {"before": 5},
        {"after": True},
        {"before": ""},
        {"after": "x/y"},
        {"other": 1},
    ],
)
def test_moves_that_are_refused(api: Api, sent: dict[str, Any]) -> None:
    three(api)
    was = everything()
    error(api.post("/v1/vm/a", sent), 400)
    assert everything() == was


def test_null_is_absent(api: Api) -> None:
    three(api)
    api.move("a", priority=25, before=None, after=None)
    assert api.ids() == list("bac")


def test_a_taken_number_is_behind_all_that_hold_it(api: Api) -> None:
    three(api)
    api.move("c", priority=10)
    assert numbers(api) == [("a", 10), ("c", 10), ("b", 20)]
    api.create("d")
    api.move("d", priority=10)
    assert api.ids() == list("acdb")
    api.move("a", priority=10)
    assert api.ids() == list("cdab"), "also behind itself"
    api.move("b", priority=11)
    api.create("e")
    api.move("e", priority=(10 + 11) // 2)
    assert api.ids() == list("cdaeb"), "the floored mean of n and n+1 lands between"


def test_before_and_after(api: Api) -> None:
    three(api)
    api.move("c", before="a")
    assert numbers(api) == [("c", 9), ("a", 10), ("b", 20)]
    api.move("c", after="a")
    assert numbers(api) == [("a", 10), ("c", 15), ("b", 20)]
    api.move("a", after="b")
    assert numbers(api) == [("c", 15), ("b", 20), ("a", 20)]
    api.move("c", before="a")
    assert numbers(api) == [("b", 20), ("c", 20), ("a", 20)]
    api.move("b", before="c")
    assert api.ids() == list("bca")


def test_between_neighbours_without_room(api: Api) -> None:
    for number, name in enumerate("ab"):
        api.create(name)
        api.move(name, priority=number)
    for number in range(6):
        api.create(f"n{number}")
        api.move(f"n{number}", before="b")
    assert numbers(api) == [("a", 0), *((f"n{number}", 0) for number in range(6)), ("b", 1)]
    api.move("n5", after="a")
    assert api.ids() == ["a", "n5", "n0", "n1", "n2", "n3", "n4", "b"]


def test_others_are_never_renumbered(api: Api) -> None:
    three(api)
    was = {row["request_id"]: row for row in everything()}
    api.move("c", before="b")
    api.move("c", after="a")
    api.move("c", priority=20)
    for row in everything():
        if row["request_id"] != "c":
            assert row == was[row["request_id"]]


def test_at_the_ends_of_the_range(api: Api) -> None:
    three(api)
    api.move("b", priority=-MOST)
    api.move("c", before="b")
    assert numbers(api) == [("c", -MOST), ("b", -MOST), ("a", 10)]
    api.move("a", before="c")
    assert api.ids() == list("acb")
    api.move("b", priority=MOST)
    assert api.create("d")["Priority"] == MOST
    assert api.create("e")["Priority"] == MOST
    assert api.ids() == list("acbde")
    api.move("c", after="e")
    assert numbers(api)[-2:] == [("e", MOST), ("c", MOST)]


def test_a_new_one_is_above_the_largest_that_ever_was(api: Api) -> None:
    three(api)
    api.move("a", priority=10**16 // 2)
    api.move("a", priority=5)
    assert api.create("d")["Priority"] == 10**16 // 2 + 1
    assert Queue.objects.get().highest == 10**16 // 2 + 1


@pytest.mark.parametrize("way", ["before", "after"])
def test_beside_itself_changes_nothing(api: Api, way: str) -> None:
    three(api)
    was = everything()
    to: dict[str, Any] = {way: "b"}
    api.move("b", **to)
    assert everything() == was


def test_beside_unknown_and_ended_ones(api: Api) -> None:
    three(api)
    api.create("r")
    admit("r")
    api.create("x")
    api.delete("/v1/vm/x")
    was = everything()
    for way in ("before", "after"):
        code, message = error(api.move("a", 404, **{way: "nothing"}), 404)
        assert "nothing" in message
        assert way in message
        assert code == "request_id_not_found"
        assert "r is running" in error(api.move("a", 409, **{way: "r"}), 409)[1]
        assert "x is cancelled" in error(api.move("a", 409, **{way: "x"}), 409)[1]
    assert everything() == was


@pytest.mark.parametrize("to", [{"priority": 5}, {"before": "a"}, {"after": "r"}])
def test_only_a_queued_one_moves(api: Api, to: dict[str, Any]) -> None:
    three(api)
    api.create("r")
    admit("r")
    was = everything()
    assert "running" in error(api.move("r", 409, **to), 409)[1]
    error(api.move("nothing", 404, **to), 404)
    error(api.post("/v1/unused/a", to), 404)
    error(api.post("/v1/vm/nothing", {}), 404)
    assert everything() == was


def test_a_move_leaves_class_and_reservation(api: Api) -> None:
    three(api)
    Entry.objects.filter(request_id="b").update(reserved="host1")
    was = Entry.objects.get(request_id="b")
    api.move("b", priority=1)
    now = Entry.objects.get(request_id="b")
    assert (now.reserved, now.waiting_class_id) == ("host1", was.waiting_class_id)
    api.delete("/v1/vm/b")
    assert Entry.objects.get(request_id="b").reserved == ""


def test_keys_that_grow_too_long_are_dealt_anew(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "LONGEST", 6)
    three(api)
    api.move("b", priority=10)
    wanted = ["b"]
    for number in range(60):
        name = f"n{number}"
        api.create(name)
        to: dict[str, Any] = {"after": "a"} if number % 2 else {"before": wanted[0]}
        api.move(name, **to)
        wanted.insert(0, name)
    assert api.ids() == ["a", *wanted, "c"]
    assert {number for _, number in numbers(api)[:-1]} == {10}
    api.move("c", priority=10)
    api.move("n59", priority=10)
    api.move("n58", after="n0")
    assert api.ids() == ["a", *(f"n{number}" for number in range(57, -1, -1)), "n58", "b", "c", "n59"]
    assert max(map(len, Entry.objects.values_list("tie", flat=True))) <= 6
    api.move("a", priority=MOST)
    for number in range(200):
        api.create(f"m{number}")
    assert api.ids()[-201:] == ["a", *(f"m{number}" for number in range(200))]


def test_the_order_is_one_tenants(api: Api, stranger: Api) -> None:
    three(api)
    stranger.create("a")
    stranger.create("z")
    api.move("a", 404, before="z")
    stranger.move("a", priority=-5)
    assert api.ids() == list("abc")
    assert stranger.ids() == ["a", "z"]
    assert json.loads(api.entry("a")["Data"])
