"""Why is it waiting? Each answer word for word, as a tired operator reads it: what is wrong, and the fix.

The nodes are rows here; that the same answers come from real nodes is shown in tests/acceptance.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.integration.engine_rows import World
from workers import services
from workers.models import Node, Run, Tenant
from workers.scheduling import explain
from workers.vocabulary.states import Reason

pytestmark = pytest.mark.django_db

#: (code, message, remedy)
Told = tuple[str, str, str]


def told(run_id: int) -> list[Told]:
    found: Any = services.explain(None, run_id)["reasons"]
    return [(item["code"], item["message"], item["remedy"]) for item in found if item["code"] != "broker"]


_SECONDS = re.compile(r"\b\d+ s\b")


def at_once(found: str, expected: str, slack_s: int = 30) -> str:
    """What was told, with the expected seconds where it is off by what may have passed meanwhile."""
    pairs = zip(_SECONDS.findall(found), _SECONDS.findall(expected), strict=False)
    for told_s, expected_s in pairs:
        if abs(int(told_s.split()[0]) - int(expected_s.split()[0])) < slack_s:
            found = found.replace(told_s, expected_s, 1)
    return found


def run_of(world: World, cpu_m: int = 1000, mem_mb: int = 512, **shape: Any) -> int:
    return world.submit(shape=world.add_shape(world.tenant, cpu_m=cpu_m, mem_mb=mem_mb, **shape))


def long_silent(world: World) -> int:
    world.node(heartbeat_at=timezone.now() - timedelta(minutes=2))
    return run_of(world)


def full(world: World, **shape: Any) -> int:
    node = world.node(cpu_m=4000, mem_mb=4096)
    world.claimed(node, shape=world.add_shape(world.tenant, cpu_m=3500, mem_mb=4000))
    return run_of(world, **shape)


def on(world: World, run_id: Callable[[World], int] = run_of, **node: Any) -> int:
    world.node(**node)
    return run_id(world)


CASES: dict[str, tuple[Callable[[World], int], list[Told]]] = {
    "no node": (
        run_of,
        [
            (
                "no_node",
                "there is no node: no worker has reported, or an operator has removed it",
                "start a worker: make worker",
            )
        ],
    ),
    "a removed node is none": (
        lambda world: on(world, mode="removed"),
        [
            (
                "no_node",
                "there is no node: no worker has reported, or an operator has removed it",
                "start a worker: make worker",
            )
        ],
    ),
    "constraint": (
        lambda world: on(world, lambda world: run_of(world, constraints={"rack_id": ["r8", "r9"]})),
        [
            (
                "constraint",
                "no node has rack_id in [r8, r9]",
                "start a worker with rack_id=r8, or submit it again without this constraint",
            )
        ],
    ),
    "too much CPU": (
        lambda world: on(world, lambda world: run_of(world, cpu_m=16_000)),
        [("cpu_total", "it needs 16 CPU, the largest node has 8", "ask for less, or start a larger node")],
    ),
    "too much memory": (
        lambda world: on(world, lambda world: run_of(world, mem_mb=32_768)),
        [
            (
                "mem_total",
                "it needs 32768 MiB of memory, the largest node has 16384",
                "ask for less, or start a larger node",
            )
        ],
    ),
    "no container runtime": (
        lambda world: on(world, lambda world: run_of(world, kind="container")),
        [
            (
                "runtime",
                "no node offers the container runtime",
                "start a worker on a machine where a Docker Engine answers",
            )
        ],
    ),
    "no process runtime": (
        lambda world: on(world, runtimes=["container"]),
        [("runtime", "no node offers the process runtime", "start a worker that offers the process runtime")],
    ),
    "CPU": (
        lambda world: full(world, mem_mb=64),
        [("cpu", "it needs 1 CPU, node n1 has free 0.5", "wait for running work to end")],
    ),
    "CPU and memory": (
        lambda world: full(world, cpu_m=2000, mem_mb=1024),
        [
            ("cpu", "it needs 2 CPU, node n1 has free 0.5", "wait for running work to end"),
            ("mem", "it needs 1024 MiB of memory, node n1 has free 96", "wait for running work to end"),
        ],
    ),
    "slots": (
        lambda world: on(world, slots=0),
        [
            (
                "slots",
                "node n1 runs as many things as it may at once",
                "wait, or raise GANTRY_NODE_SLOTS",
            )
        ],
    ),
    "draining": (
        lambda world: on(world, mode="draining"),
        [("draining", "node n1 is draining", "undrain it or add a node")],
    ),
    "silent": (
        long_silent,
        [("silent", "node n1 has been silent for 120 s", "look at the worker on that machine")],
    ),
    "stopped": (
        lambda world: on(world, detached=True, heartbeat_at=timezone.now() - timedelta(seconds=7)),
        [
            (
                "silent",
                "the worker of node n1 was stopped 7 s ago",
                "start it again on that machine: make worker",
            )
        ],
    ),
    "in trouble": (
        lambda world: on(world, trouble="only 12 MiB free in /data/scratch, it needs 256"),
        [
            (
                "trouble",
                "node n1 takes no work: only 12 MiB free in /data/scratch, it needs 256",
                "repair that",
            )
        ],
    ),
    "about to start": (
        on,
        [("turn", "it is about to start", "wait")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_why_it_waits(world: World, name: str) -> None:
    """Catches: a reason that is missing, vague, about the wrong node, or whose remedy would not help."""
    prepare, expected = CASES[name]
    found = told(prepare(world))
    messages = [at_once(item[1], other[1]) for item, other in zip(found, expected, strict=False)]
    assert [
        (code, text, remedy) for (code, _, remedy), text in zip(found, messages, strict=False)
    ] == expected


def test_numbers_are_told_as_numbers_too(world: World) -> None:
    """A page or a script shows need and free without reading the sentence."""
    found: Any = services.explain(None, full(world, cpu_m=2000, mem_mb=64))["reasons"]
    assert found[0] == {
        "code": "cpu",
        "message": "it needs 2 CPU, node n1 has free 0.5",
        "need": 2.0,
        "free": 0.5,
        "quota": None,
        "blocked_by": [],
        "remedy": "wait for running work to end",
    }


def test_the_strongest_reason_comes_first(world: World) -> None:
    """What is nearest to being solved is told first: one obstacle before two, and no wall beside them."""
    world.node("far", cpu_m=500)
    world.node("full", cpu_m=4000, cpu_m_used=4000, slots=0)
    world.node("nearly", cpu_m=4000, cpu_m_used=3500)
    assert [(code, message) for code, message, _ in told(run_of(world))] == [
        ("cpu", "it needs 1 CPU, node nearly has free 0.5"),
        ("cpu", "it needs 1 CPU, node full has free 0"),
        ("slots", "node full runs as many things as it may at once"),
    ]


def test_a_wall_for_each_node_is_told_when_they_differ(world: World) -> None:
    """Catches: "no node has rack_id r1" of a node that has it and lacks something else."""
    world.node("n1", attributes={"rack_id": "r1"}, cpu_m=500)
    world.node("n2", attributes={"rack_id": "r2"})
    world.node("n3", attributes={"rack_id": "r1"}, mode="draining")
    assert [message for _, message, _ in told(run_of(world, constraints={"rack_id": ["r1"]}))] == [
        "it needs 1 CPU, node n1 has 0.5",
        "node n2 has rack_id r2, not one of [r1]",
        "node n3 is draining",
    ]


def test_a_node_that_is_kept_for_another_run(world: World) -> None:
    node = world.node()
    large, small = run_of(world, cpu_m=8000), run_of(world)
    Node.objects.filter(pk=node.pk).update(reserved_for=large)
    assert told(small) == [
        (
            "reserved",
            "node n1 is kept for a run that was passed over too long",
            "wait: it goes on as soon as that run has started",
        )
    ]
    assert told(large) == [("turn", "it is about to start", "wait")]


def test_a_tenant_that_may_not_use_the_workers_account(world: World) -> None:
    world.node(isolates_users=False)
    other = Tenant.objects.create(name="other")
    run_id = world.submit(shape=world.add_shape(other, cpu_m=1000, mem_mb=1))
    assert told(run_id) == [
        (
            "not_isolated",
            "node n1 runs commands as its own user, which this tenant may not use",
            "run the worker as root, so that each command gets a user of its own",
        )
    ]


def test_a_run_that_waits_for_its_next_try(world: World) -> None:
    """Catches: a message that hides why the last try failed, or when the next one is due."""
    lease = world.claimed(world.node(), retries=1)
    world.retry(lease, message="Command exited with status 7", exit_code=7, backoff_s=400.0)
    Run.objects.update(not_before=timezone.now() + timedelta(seconds=331.4))
    ((code, message, remedy),) = told(lease.run_id)
    expected = "its next try is due in 331 s: Command exited with status 7"
    assert (code, at_once(message, expected), remedy) == ("backoff", expected, "wait, or cancel it")


def test_its_place_in_the_queue(world: World) -> None:
    """Catches: a position that counts other tenants' runs, later ones, or those that are backing off."""
    world.node(cpu_m=1000, slots=0)
    ahead = [world.submit() for _ in range(3)]
    other = Tenant.objects.create(name="other")
    world.submit(shape=world.add_shape(other, cpu_m=1000, mem_mb=100))
    mine = world.submit()
    urgent = world.submit(priority=1)
    positions = {run_id: services.explain(None, run_id)["position"] for run_id in (*ahead, mine, urgent)}
    assert positions == {ahead[0]: 1, ahead[1]: 2, ahead[2]: 3, mine: 4, urgent: 0}


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"started_at": timezone.now()}, "running", "it runs on node n1"),
        ({}, "preparing", "node n1 prepares it: files and folders"),
        (
            {"started_at": timezone.now(), "cancel_requested_at": timezone.now()},
            "cancelling",
            "node n1 is stopping it",
        ),
    ],
)
def test_what_a_running_run_does(world: World, change: dict[str, Any], code: str, message: str) -> None:
    lease = world.claimed(world.node())
    Run.objects.filter(pk=lease.run_id).update(**change)
    assert [item[:2] for item in told(lease.run_id)] == [(code, message)]


def test_a_running_run_whose_node_is_silent(world: World) -> None:
    """Catches: an operator who is not told until when he can still save the work."""
    lease = world.claimed(world.node())
    Node.objects.update(heartbeat_at=timezone.now() - timedelta(seconds=100))
    ((code, message, remedy),) = told(lease.run_id)
    assert code == "silent"
    expected = "node n1 has been silent for 100 s; the attempt is given up in 500 s"
    assert at_once(message, expected) == expected
    assert remedy == "look at the worker on that machine: what runs there goes on meanwhile"
    Node.objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
    expected = "node n1 has been silent for 3600 s; the attempt is being given up"
    assert at_once(told(lease.run_id)[0][1], expected) == expected


def test_what_has_ended_says_how(world: World) -> None:
    lease = world.claimed(world.node())
    world.finish(lease, reason=Reason.EXIT_CODE, message="Command exited with status 3", exit_code=3)
    assert [item[:2] for item in told(lease.run_id)] == [("ended", "Command exited with status 3")]


def test_the_sentence_for_a_list_is_the_same_one(world: World) -> None:
    """A list of tasks tells each why it waits, from the same verdicts."""
    world.node()
    far = run_of(world, constraints={"rack_id": ["r9"]})
    near = run_of(world)
    shapes = dict(Run.objects.values_list("id", "shape_id"))
    sentences = explain.why_waiting(shapes.values())
    assert sentences == {shapes[far]: "no node has rack_id in [r9]", shapes[near]: ""}
