"""What is read and said on the wire, without a database."""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queues import bodies
from queues.entries import wire
from queues.entries.errors import NoSuchEntry, render_error
from queues.entries.moving import place
from queues.entries.rows import Place
from tests.support.seeds import dice
from workers.vocabulary.errors import InvalidInput

AT = datetime(2018, 8, 27, 11, 27, 8, 564319, timezone(timedelta(hours=8)))
ENTRY = wire.EntryFacts(
    7, "vm", AT, AT, None, "d", "y", '{"a":1}', "http://r.example/", 5, "queued", True, None, None, "V"
)
BODY: dict[str, Any] = {"request_id": "d", "owner_id": "y", "data": {"a": 1}, "callback": "abc"}
MOST = 2**53 - 1


def test_an_entry() -> None:
    assert wire.render_entry(ENTRY) == {
        "ID": 7,
        "CreatedAt": "2018-08-27T03:27:08.564319Z",
        "UpdatedAt": "2018-08-27T03:27:08.564319Z",
        "DeletedAt": None,
        "RequestID": "d",
        "Type": "vm",
        "OwnerID": "y",
        "Data": '{"a":1}',
        "Callback": "http://r.example/",
        "Priority": 5,
        "Status": "queued",
        "CallbackState": "due",
        "CallbackError": None,
    }


@pytest.mark.parametrize(
    ("status", "told", "stored", "shown"),
    [
        ("queued", False, None, "due"),
        ("running", False, None, "due"),
        ("running", False, "due", "due"),
        ("running", True, "due", "due"),
        ("running", True, "delivered", "delivered"),
        ("failed", False, "dead", "dead"),
        ("running", False, "disabled", "dead"),
        ("finished", True, None, "delivered"),
        ("cancelled", False, None, None),
    ],
)
def test_the_state_of_a_callback(status: str, told: bool, stored: str | None, shown: str | None) -> None:
    facts = ENTRY._replace(status=status, told_at=AT if told else None, callback_state=stored)
    assert wire.callback_state(facts)[0] == shown
    assert wire.callback_state(facts._replace(deliverable=False))[0] == "undeliverable"


def test_what_went_wrong_last() -> None:
    facts = ENTRY._replace(status="running", callback_error="no route")
    assert wire.callback_state(facts._replace(callback_state="due")) == ("due", "no route")
    assert wire.callback_state(facts._replace(callback_state="delivered")) == ("delivered", None)
    failed = facts._replace(status="failed", message="given back", callback_error=None)
    assert wire.callback_state(failed._replace(callback_state="dead")) == ("dead", "given back")
    assert wire.callback_state(failed) == ("dead", "given back")
    assert "given back" in str(wire.callback_state(failed._replace(deliverable=False))[1])
    assert "410" in str(wire.callback_state(facts._replace(callback_state="disabled"))[1])


@pytest.mark.parametrize(
    ("callback", "deliverable"),
    [
        ("http://r.example/x", True),
        ("https://r.example:8443", True),
        ("http://10.0.0.1/", True),
        ("abc", False),
        ("ftp://r.example/", False),
        ("http://", False),
        ("http://r.example/a b", False),
        ("//r.example/", False),
    ],
)
def test_which_callbacks_can_be_called(callback: str, deliverable: bool) -> None:
    assert wire.parse_entry("gpu", {**BODY, "callback": callback}).deliverable is deliverable


def test_a_request() -> None:
    sent = {**BODY, "data": {"b": 1.5, "a": 2, "host_aggregate": "h"}}
    wanted = wire.parse_entry("gpu", sent)
    assert wanted.data == '{"a":2,"b":1.5,"host_aggregate":"h"}'
    assert wanted.need == ((1, (("a", 2000), ("b", 1500))),)
    assert wanted.aggregate == "h"


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_data_comes_back_as_it_was_sent(value: Any) -> None:
    text = bodies.data_text({"x": value})
    assert json.loads(text) == {"x": value}
    assert text == bodies.data_text(json.loads(text))


def test_data_that_is_no_json() -> None:
    for number in (float("inf"), float("-inf"), float("nan")):
        with pytest.raises(InvalidInput, match="data"):
            bodies.data_text({"a": [number]})
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInput, match="deep"):
        bodies.data_text({"a": deep})


@given(st.integers(-MOST, MOST), st.floats(0, 0.999))
def test_a_fraction_is_rounded_down(whole: int, part: float) -> None:
    assert wire.parse_priority(whole) == whole
    small = whole % 1_000_000
    assert wire.parse_priority(small + part) == small
    assert wire.parse_priority(-small - 1 + part) == -small - 1


@pytest.mark.parametrize("given", [MOST + 1, -MOST - 1, 1e300, float("nan"), "5", True, None, [], 10**400])
def test_priorities_that_cannot_be(given: Any) -> None:
    with pytest.raises(InvalidInput, match="priority"):
        wire.parse_priority(given)


def test_moves() -> None:
    assert wire.parse_move({"priority": 3.7}) == wire.MoveRequest(priority=3)
    assert wire.parse_move({"before": "a", "x": 1}) == wire.MoveRequest(before="a")
    assert wire.parse_move({"after": "a", "priority": None}) == wire.MoveRequest(after="a")
    assert wire.parse_move({"priority": 0}) == wire.MoveRequest(priority=0)


def test_statuses() -> None:
    assert wire.wanted_statuses(None) == wire.wanted_statuses("") == ("running", "queued")
    assert wire.wanted_statuses("queue") == wire.wanted_statuses("queued") == ("queued",)
    assert wire.wanted_statuses("x") == ("x",)


def test_the_body_of_a_callback() -> None:
    told = bodies.callback_body(request_id="d", kind="vm", owner_id="y", data={"a": 2**70}, sequence=1)
    assert told == {
        "request_id": "d",
        "type": "vm",
        "owner_id": "y",
        "status": "running",
        "data": {"a": 2**70},
        "sequence": 1,
    }


def test_errors() -> None:
    wanted = {"ok": False, "error": {"id": "invalid", "message": "data: is wrong"}}
    assert render_error(400, "invalid", "is wrong", "data") == wanted
    assert render_error(400, "invalid", "data: is wrong", "data") == wanted
    assert "x" in NoSuchEntry("x").message


def test_moments_inside() -> None:
    found = wire.with_stamps({"a": [AT, {"b": AT}], "c": (1, "x")})
    assert found == {
        "a": ["2018-08-27T03:27:08.564319Z", {"b": "2018-08-27T03:27:08.564319Z"}],
        "c": [1, "x"],
    }


def _inserted(rows: list[tuple[int, str]], at: int) -> tuple[int, str]:
    left = Place(1, "queued", *rows[at - 1], 1) if at > 0 else None
    right = Place(2, "queued", *rows[at], 1) if at < len(rows) else None
    return place(left, right)


def test_a_place_is_always_between_its_neighbours() -> None:
    rolled: random.Random = dice("places")
    for start in ([(0, "V"), (1, "V")], [(-MOST, "V"), (MOST, "V")], [(5, "V"), (5, "W")]):
        rows = list(start)
        for _ in range(300):
            at = rolled.randrange(len(rows) + 1)
            priority, tie = _inserted(rows, at)
            assert abs(priority) <= MOST
            if at > 0:
                assert rows[at - 1] < (priority, tie)
                if at < len(rows):
                    mean = (rows[at - 1][0] + rows[at][0]) // 2
                    assert priority in (rows[at - 1][0], mean)
                else:
                    assert priority == rows[at - 1][0]
            if at < len(rows):
                assert (priority, tie) < rows[at]
            rows.insert(at, (priority, tie))
