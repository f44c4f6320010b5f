"""Placement as properties: what must hold of ``obstacles``, and its words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.scheduling.placing import NOW_US, PROFILE, Situation, a_node, a_shape, nodes, queue
from workers.scheduling.obstacles import NodeView, Obstacle, ShapeView, as_json, obstacles


@st.composite
def any_node(draw: st.DrawFn) -> NodeView:
    node = draw(nodes())
    return replace(
        node,
        mode=draw(st.sampled_from(["ready", "ready", "draining", "removed"])),
        silent_s=draw(st.sampled_from([None, None, 45.0])),
        trouble=draw(st.sampled_from(["", "", "only 3 MiB free in /data"])),
        runtimes=frozenset(draw(st.sets(st.sampled_from(["process", "container"])))),
        attributes=draw(st.sampled_from([{}, {"rack_id": "r1"}, {"rack_id": "r2", "hostname": "h2"}])),
        isolates_users=draw(st.booleans()),
    )


@st.composite
def any_shape(draw: st.DrawFn) -> ShapeView:
    return a_shape(
        kind=draw(st.sampled_from(["process", "container"])),
        cpu_m=draw(st.sampled_from([100, 1000, 4000, 16000])),
        mem_mb=draw(st.sampled_from([64, 1024, 8192])),
        constraints=draw(
            st.sampled_from([{}, {"rack_id": ["r1"]}, {"rack_id": ["r1", "r2"], "hostname": ["h2"]}])
        ),
        trusted=draw(st.booleans()),
    )


def at_rest(node: NodeView) -> NodeView:
    """The node with everything free and nothing wrong."""
    return replace(
        node,
        mode="ready",
        silent_s=None,
        trouble="",
        cpu_m_free=node.cpu_m,
        mem_mb_free=node.mem_mb,
        slots_free=64,
    )


@PROFILE
@given(any_shape(), any_node())
def test_no_obstacle_means_that_it_is_chosen_and_an_obstacle_that_it_is_not(
    shape: ShapeView, node: NodeView
) -> None:
    """Catches: an explanation that does not agree with what claiming does.

    Claiming offers to ``choose`` what has passing obstacles only, and looks for work on a ready node without
    trouble; a silent node does not look at all.
    """
    found = obstacles(shape, node)
    looks = node.mode == "ready" and not node.trouble and node.silent_s is None
    offered = looks and all(item.passing for item in found)
    taken = Situation(node, [(shape, queue(NOW_US))], {}, 1).choose().take if offered else []
    assert (not found) == bool(taken)


@PROFILE
@given(any_shape(), any_node())
def test_passing_obstacles_vanish_and_the_others_do_not(shape: ShapeView, node: NodeView) -> None:
    """Catches: "wait" said of what never comes, or "never" said of what only has to wait.

    It also keeps a node from being reserved for what it could never hold.
    """
    found = obstacles(shape, node)
    if node.mode == "ready":
        assert all(item.passing for item in found) == (not obstacles(shape, at_rest(node)))
    elif found:
        assert not all(item.passing for item in found)


@PROFILE
@given(any_shape(), any_node(), st.integers(0, 4), st.integers(0, 4))
def test_more_room_is_never_an_obstacle(shape: ShapeView, node: NodeView, cpus: int, gibs: int) -> None:
    """Catches: a comparison the wrong way round."""
    more = replace(
        node,
        cpu_m_free=min(node.cpu_m, node.cpu_m_free + cpus * 1000),
        mem_mb_free=min(node.mem_mb, node.mem_mb_free + gibs * 1024),
        slots_free=node.slots_free + 1,
    )
    assert {item.code for item in obstacles(shape, more)} <= {item.code for item in obstacles(shape, node)}


@PROFILE
@given(any_shape(), any_node())
@example(a_shape(cpu_m=16000), a_node())
def test_every_obstacle_says_what_is_wrong_and_what_to_do(shape: ShapeView, node: NodeView) -> None:
    """Catches: an explanation without the node's name or the remedy; a number that says nothing."""
    for item in obstacles(shape, node):
        assert node.name in item.message
        assert item.remedy
        told = as_json(item)
        assert list(told) == ["code", "message", "need", "free", "quota", "blocked_by", "remedy"]
        if item.code in ("cpu", "mem", "cpu_total", "mem_total"):
            assert item.need is not None
            assert item.free is not None
            assert item.need > item.free


@pytest.mark.parametrize(
    ("shape", "node", "code", "message"),
    [
        (
            a_shape(constraints={"rack_id": ["r8", "r9"]}),
            a_node(),
            "constraint",
            "node n1 has rack_id r1, not one of [r8, r9]",
        ),
        (
            a_shape(constraints={"zone": ["a"]}),
            a_node(),
            "constraint",
            "node n1 has zone (none), not one of [a]",
        ),
        (
            a_shape(constraints={"storage_s3": ["yes"]}),
            a_node(attributes={"storage_s3": "there is no boto3 here"}),
            "constraint",
            "node n1 cannot speak S3: there is no boto3 here",
        ),
        (
            a_shape(constraints={"local:/data": ["yes"]}),
            a_node(),
            "constraint",
            "node n1 does not offer the folder /data",
        ),
        (a_shape(kind="container"), a_node(), "runtime", "node n1 offers no container runtime"),
        (
            a_shape(trusted=False),
            a_node(isolates_users=False),
            "not_isolated",
            "node n1 runs commands as its own user, which this tenant may not use",
        ),
        (
            a_shape(trusted=False),
            a_node(isolates_users=False, attributes={"isolation": "uids"}),
            "not_isolated",
            "node n1 separates commands by user only: others see their command lines and /tmp",
        ),
        (
            a_shape(trusted=False, unisolated=True),
            a_node(isolates_users=False, attributes={"isolation": "none"}),
            "not_isolated",
            "node n1 runs commands as its own user, which this tenant may not use",
        ),
        (a_shape(cpu_m=8100), a_node(), "cpu_total", "it needs 8.1 CPU, node n1 has 8"),
        (a_shape(mem_mb=16385), a_node(), "mem_total", "it needs 16385 MiB of memory, node n1 has 16384"),
        (a_shape(), a_node(mode="draining"), "draining", "node n1 is draining"),
        (a_shape(), a_node(mode="removed"), "node_removed", "node n1 was removed"),
        (a_shape(), a_node(silent_s=61.4), "silent", "node n1 has been silent for 61 s"),
        (a_shape(), a_node(trouble="disk full"), "trouble", "node n1 takes no work: disk full"),
        (a_shape(), a_node(cpu_m_free=250), "cpu", "it needs 1 CPU, node n1 has free 0.25"),
        (a_shape(), a_node(mem_mb_free=511), "mem", "it needs 512 MiB of memory, node n1 has free 511"),
        (a_shape(), a_node(slots_free=0), "slots", "node n1 runs as many things as it may at once"),
    ],
)
def test_the_words_of_an_obstacle(shape: ShapeView, node: NodeView, code: str, message: str) -> None:
    """Exact words: an operator reads them at night, and people search for them."""
    (found,) = obstacles(shape, node)
    assert (found.code, found.message) == (code, message)


def test_what_lasts_is_told_before_what_passes() -> None:
    """Catches: "wait for running work to end" of a node that lacks the constraint anyway."""
    found: list[Obstacle] = obstacles(
        a_shape(constraints={"rack_id": ["r9"]}, cpu_m=8100), a_node(mode="draining", cpu_m_free=0)
    )
    assert [item.code for item in found] == ["constraint", "cpu_total"]


def test_who_may_run_where_commands_have_users_of_their_own_only() -> None:
    """The installation's own tenant, and one whose operator has opened that for it."""
    uids = a_node(isolates_users=False, attributes={"isolation": "uids"})
    assert obstacles(a_shape(trusted=True), uids) == []
    assert obstacles(a_shape(trusted=False, unisolated=True), uids) == []
    assert (
        obstacles(a_shape(trusted=False, kind="container"), a_node(runtimes=frozenset({"container"}))) == []
    )
