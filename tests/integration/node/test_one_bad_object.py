"""One run, runtime or question that is out of order: the node goes on with all others."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection
from structlog.testing import capture_logs

from tests.integration.engine_rows import World
from workers.models import Node, NodeRequest, Run
from workers.node import orphans, questions
from workers.node.keeper import Keeper
from workers.node.leftovers import Leftovers
from workers.node.registration import Registration
from workers.node.scribe import Entry, Scribe
from workers.upkeep import retention

pytestmark = pytest.mark.django_db(transaction=True)


class Well:
    """As much of a runtime as the node's rounds ask for."""

    kind = "well"

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def trouble(self) -> str:
        return ""

    def renewed(self, *figures: float) -> None:
        self.asked.append("renewed")

    def attempts(self) -> list[tuple[int, int]]:
        return [(901, 1), (902, 1)]

    def kill_orphan(self, run_id: int, attempt: int) -> None:
        self.asked.append(("kill", run_id))

    def cleanup(self, run_id: int, attempt: int) -> None:
        self.asked.append(("cleanup", run_id))
        if run_id == 901:
            raise RecursionError("too deep")


class Ill(Well):
    kind = "ill"

    def trouble(self) -> str:
        raise OSError("its folder is gone")

    def renewed(self, *figures: float) -> None:
        raise OSError("its folder is gone")

    def attempts(self) -> list[tuple[int, int]]:
        raise OSError("its folder is gone")


def _fail() -> None:
    raise OSError("/x cannot be removed")


def test_a_runtime_that_cannot_be_asked_keeps_no_node_silent(node: Node, settings: Any) -> None:
    """Catches a heartbeat that stays away, all leases with it, for one runtime's fault."""
    ill, well = Ill(), Well()
    runtimes: Any = {"ill": ill, "well": well}
    leftovers = Leftovers()
    with leftovers.removing(("well", 7, 1)):
        _fail()
    with open("/dev/null") as lock:  # noqa: PTH123
        held = Registration(node.pk, node.name, node.incarnation, False, lock)
        Keeper(held, runtimes, list, leftovers).beat(broker_ok=True)
    node.refresh_from_db()
    assert (node.beats, node.trouble) == (1, "")
    assert node.troubles == {
        "ill": "it cannot say whether it is well: its folder is gone",
        "leftovers": "left of run 7 (well, attempt 1): /x cannot be removed",
    }
    assert well.asked == ["renewed"]


def test_a_sweep_goes_on_after_what_it_cannot_remove_or_search(node: Node, settings: Any) -> None:
    settings.GANTRY_ORPHAN_GRACE_S = 0
    well, leftovers = Well(), Leftovers()
    runtimes: Any = [Ill(), well]
    for _ in range(2):
        orphans.sweep_all(runtimes, node.pk, leftovers)
    first = [("kill", 901), ("cleanup", 901), ("kill", 902), ("cleanup", 902)]
    assert well.asked == [*first, ("kill", 902), ("cleanup", 902)], "the one that stays is not due again"
    assert leftovers.words() == "left of run 901 (well, attempt 1): too deep"


def test_a_question_that_cannot_be_answered_holds_up_no_other(node: Node) -> None:
    """Catches one that comes again with every look of the node, and those behind it that wait for ever."""
    asked = [
        NodeRequest.objects.create(node=node, kind="reconcile", payload={"runs": [1, 2]}),
        NodeRequest.objects.create(node=node, kind="containers", payload={}),
        NodeRequest.objects.create(node=node, kind="other", payload={}),
    ]

    def presence(run_id: int) -> tuple[bool, str]:
        if run_id == 1:
            raise OSError("its folder is ill")
        return True, "running"

    def lookup(payload: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("Labels")

    questions.answer([item.pk for item in asked], presence, {"containers": lookup, "other": dict})
    for item in asked:
        item.refresh_from_db()
    assert [item.answer for item in asked] == [
        {"1": [False, "the node cannot tell: OSError('its folder is ill')"], "2": [True, "running"]},
        {"error": "this node cannot answer: KeyError('Labels')"},
        {},
    ]
    assert all(item.answered_at for item in asked)


def test_the_scribe_outlives_whatever_it_is_given(world: World, node: Node) -> None:
    """Catches a thread that ends at one entry: then no run of the node is recorded any more."""
    lease = world.claimed(node)
    nested: list[Any] = []
    for _ in range(3_000):
        nested = [nested]
    scribe = Scribe("n1", threading.Event().set)
    scribe.start()
    bad = scribe.write(Entry("facts", lease, facts={"x": nested}))
    good = scribe.write(Entry("told", lease, message="Pulling"))
    with pytest.raises(RecursionError):
        bad.result(timeout=60)
    assert good.result(timeout=60)
    scribe.stop(60)
    assert Run.objects.get(pk=lease.run_id).message == "Pulling"


def test_what_cannot_be_deleted_keeps_nothing_else(world: World) -> None:
    """Catches old rows that pile up everywhere since one table, or one family, is out of order."""
    question = NodeRequest.objects.create(node=world.node(), kind="other")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE workers_noderequest SET created_at = now() - interval '1 day'")
        cursor.execute("ALTER TABLE workers_usageday RENAME TO away")
    try:
        with capture_logs() as told:
            counts = retention.prune_once(10)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO workers_usageday")
    assert (counts["node_requests"], "usage" in counts) == (1, False)
    assert not NodeRequest.objects.filter(pk=question.pk).exists()
    assert [(item["event"], item["item"]) for item in told] == [("round.failed", "usage")]
