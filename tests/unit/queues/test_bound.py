"""By when the head of a best-effort queue starts at the latest (queues.estimates.bound)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queues.admission.asked import Asked, ask
from queues.estimates.bound import bound, kept_for
from queues.estimates.forward import Running
from queues.needs import Need
from tests.unit.queues.deciding import aggregate, cpus, gang, seen, unknown_fit, waiting

A = 100 * ord("a")


def run(entry: int, amount: int, age: float, cap: float | None, host: int = A) -> Running:
    return Running(entry, 1, "o", cpus(amount), age, cap, ((host, "cpu", amount),))


def head(need: Need, *free: int, total: int = 8, **more: Any) -> Asked:
    largest = waiting(50, need, owner="z")
    snapshot = seen(largest, *more.pop("beside", ()), there=(aggregate("a", *free, total=total),), **more)
    return ask(snapshot, largest.id, largest.heads[0])


def told(asked: Asked, runs: Sequence[Running], **more: Any) -> dict[str, Any]:
    return bound(asked, runs, 2.0, **more).shown()


def test_it_is_the_last_end_that_is_needed() -> None:
    """Catches the first end, or the whole duration of what has run for a while."""
    runs = [run(1, 4, 10, 40), run(2, 2, 0, 100), run(3, 2, 0, 1000)]
    assert told(head(cpus(4), 0), runs) == {"aggregate": "a", "bound_s": 32.0}
    assert told(head(cpus(6), 0), runs) == {"aggregate": "a", "bound_s": 102.0}
    assert told(head(cpus(8), 0), runs) == {"aggregate": "a", "bound_s": 1002.0}


def test_a_gang_waits_for_enough_hosts() -> None:
    """Catches a sum over the hosts."""
    runs = [run(1, 8, 0, 10), run(2, 8, 0, 50, A + 1)]
    assert told(head(gang(2, cpu=4), 0, 0), runs)["bound_s"] == 12.0
    assert told(head(gang(2, cpu=6), 0, 0), runs)["bound_s"] == 52.0


def test_of_several_sizes_all_have_to_end() -> None:
    """Catches a placement that a search finds now and may miss when more is free."""
    need = ((1, (("cpu", 1),)), (1, (("cpu", 2),)))
    assert told(head(need, 0), [run(1, 4, 0, 10), run(2, 4, 0, 70)])["bound_s"] == 72.0


def test_who_declares_nothing_leaves_it_unknown_where_his_end_is_needed() -> None:
    runs = [run(1, 4, 0, 10), run(2, 4, 0, None)]
    assert told(head(cpus(4), 0), runs)["bound_s"] == 12.0
    assert "1 of 2 that run there declare no duration" in told(head(cpus(8), 0), runs)["unknown"]
    runs = [run(1, 4, 0, 10), run(2, 4, 60, 50)]
    assert "outlasted" in told(head(cpus(8), 0), runs)["unknown"]


def test_what_could_make_it_later_is_said() -> None:
    """Catches a bound that does not bind: others outside, and one before it that its quota holds back."""
    runs = [run(1, 8, 0, 10)]
    assert "placement" in told(head(cpus(8), 0), runs, outside="placement")["unknown"]
    assert "looked at together" in told(head(cpus(8), 0, approximate=True), runs)["unknown"]
    limited = waiting(7, cpus(4), owner="q")
    held, quotas = {(1, "q"): {"cpu": 4}}, {(1, "q"): {"cpu": 4}}
    asked = head(cpus(8), 0, beside=[limited], held=held, quotas=quotas)
    assert kept_for(asked)
    assert "quota" in told(asked, runs)["unknown"]
    never = {(1, "q"): {"cpu": 3}}
    assert told(head(cpus(8), 0, beside=[limited], held=held, quotas=never), runs)["bound_s"] == 12.0
    behind = waiting(70, cpus(4), owner="q")
    assert told(head(cpus(8), 0, beside=[behind], held=held, quotas=quotas), runs)["bound_s"] == 12.0


def test_one_before_it_of_which_nobody_knows_whether_it_fits_is_said() -> None:
    """Catches a bound that does not bind: a look that has more patience finds a place, and keeps it."""
    need, hosts = unknown_fit()
    runs = [run(1, 300, 0, 10)]
    here: dict[str, Any] = {"total": 300, "beside": [waiting(7, need)]}
    asked = head(cpus(300), *[0] * len(hosts), **here)
    assert kept_for(asked)
    assert "not known whether all there is suffices for one before it" in told(asked, runs)["unknown"]
    never = {(1, "o"): {"cpu": 100}}
    assert told(head(cpus(300), *[0] * len(hosts), quotas=never, **here), runs)["bound_s"] == 12.0


def test_only_the_head_has_one() -> None:
    assert kept_for(head(cpus(8), 0, strict=True)) is None
    first = waiting(1, cpus(8))
    assert kept_for(head(cpus(8), 0, beside=[first])) is None
