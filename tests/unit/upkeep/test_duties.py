"""Duties of families: found by name, done in their rhythm, none held up by another's failure."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.utils.module_loading import import_string
from structlog.testing import capture_logs

from tests.support.waiting import wait_until
from workers.upkeep.duties import Rota
from workers.vocabulary import families
from workers.vocabulary.duties import Duty, one_by_one

looks: list[str] = []


def _look(name: str, done: int = 0) -> dict[str, int]:
    looks.append(name)
    return {"admitted": done, "left": 0}


def _fails() -> dict[str, int]:
    looks.append("broken")
    raise RuntimeError("its provider lies")


NOW = Duty(0.0, lambda: _look("now", 3))
HOURLY = Duty(3600.0, lambda: _look("hourly"))
BROKEN = Duty(0.0, _fails)


@pytest.fixture
def registered(settings: Any) -> Any:
    looks.clear()
    return lambda *names: setattr(settings, "GANTRY_DUTIES", {name: f"{__name__}.{name}" for name in names})


def test_what_is_due_is_done_and_told(registered: Any) -> None:
    registered("NOW", "HOURLY")
    rota = Rota()
    with capture_logs() as told:
        assert [rota.turn(), rota.turn()] == [0.0, 0.0]
    assert looks == ["now", "hourly", "now"]
    assert told == [{"event": "duty.done", "log_level": "info", "duty": "NOW", "admitted": 3}] * 2


def test_the_next_turn_comes_when_the_next_duty_is_due(registered: Any) -> None:
    registered("HOURLY")
    rota = Rota()
    rest = rota.turn()
    assert 3000 < rest <= 3600
    assert rota.turn() <= rest, "and looking again does not put it off"
    assert looks == ["hourly"]


def test_one_that_fails_holds_up_no_other(registered: Any) -> None:
    registered("BROKEN", "NOW")
    rota = Rota()
    with capture_logs() as told:
        rota.turn()
        rota.turn()
    assert looks == ["broken", "now", "broken", "now"]
    assert [entry["duty"] for entry in told if entry["event"] == "duty.failed"] == ["BROKEN", "BROKEN"]


def test_nothing_registered_is_nothing_to_do(registered: Any) -> None:
    registered()
    assert Rota().turn() > 60
    assert looks == []


def test_a_duty_that_is_not_there_is_named(settings: Any) -> None:
    settings.GANTRY_DUTIES = {"admission": "queues.elsewhere.DUTY"}
    with pytest.raises(ImportError, match="queues"):
        Rota()


def test_what_the_installation_registers_can_be_found() -> None:
    assert all(isinstance(import_string(dotted), Duty) for dotted in settings.GANTRY_DUTIES.values())
    assert all(callable(import_string(dotted)) for dotted in settings.GANTRY_PRUNERS)
    assert all(callable(families.family(name).callback) for name in settings.GANTRY_FAMILIES)


def test_of_many_objects_one_that_fails_stops_no_other_and_is_tried_more_seldom() -> None:
    """Catches a round over runs, nodes, types or jobs that ends at the first one that is out of order."""
    tried: list[int] = []

    def do(item: int) -> int:
        tried.append(item)
        if item == 2 and len(tried) < 7:
            raise KeyError("out of order")
        return item * 10

    with capture_logs() as told:
        assert one_by_one("a test", [1, 2, 3], do) == {1: 10, 3: 30}
        assert one_by_one("a test", [1, 2, 3], do) == {1: 10, 3: 30}
        assert one_by_one("another test", [2], do) == {}
    assert tried == [1, 2, 3, 1, 3, 2]
    assert [(item["event"], item["what"], item["item"], item["again_in_s"]) for item in told] == [
        ("round.failed", "a test", "2", 1.0),
        ("round.failed", "another test", "2", 1.0),
    ]
    wait_until(lambda: one_by_one("a test", [2], do) == {2: 20}, why="it is tried again")
    assert one_by_one("a test", [2], do) == {2: 20}


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_what_concerns_all_of_them_is_no_fault_of_one(error: type[Exception]) -> None:
    """A database that is away: the round ends, and comes again as a whole."""

    def do(item: int) -> int:
        raise error("away")

    for _ in range(2):
        with pytest.raises(error):
            one_by_one("a test away", [1, 2], do)
