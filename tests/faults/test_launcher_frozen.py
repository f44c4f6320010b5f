"""The launcher stands still: it keeps its connections and answers nothing. Everything else goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.cluster import Cluster, freeze
from tests.support.containers import submit_container
from tests.support.engine import run, submit, wait_final
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants
from tests.support.machine import launcher_pid
from tests.support.waiting import wait_until
from workers.models import Node
from workers.scheduling.explain import explain_run
from workers.vocabulary.states import State


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def node() -> Node:
    return Node.objects.get(name="n1")


def test_a_launcher_that_stands_still_stops_commands_alone(
    engine: Engine, cluster: Cluster, account: Account
) -> None:
    """Catches a heartbeat that waits for it: the node was silent, its containers waited with it, and the
    explanation sent whoever asked to Redis.
    """
    worker = cluster.node("n1", settings=engine.env)
    wait_final(submit(account.tenant_id, "true"))
    pid = launcher_pid(cluster.folder / "n1")
    with standing_still(pid):
        claimed = submit(account.tenant_id, "echo claimed")
        (ended,) = wait_final(submit_container(account.tenant_id, "echo done"))
        assert ended.state == State.SUCCEEDED
        wait_until(lambda: "process" in node().troubles, why="the node says what is wrong", see=node)
        assert "the launcher has not answered for" in node().troubles["process"]
        assert f"process {pid}" in node().troubles["process"]
        assert node().troubles.keys() == {"process"}
        beats = node().beats
        wait_until(lambda: node().beats > beats + 3, why="its heart beats", see=node)
        waiting = submit(account.tenant_id, "echo waiting")
        for run_id in (claimed, waiting):
            told = explain_run(run(run_id))["reasons"]
            assert [item["code"] for item in told] == ["trouble"], told
            assert "the launcher has not answered for" in told[0]["message"]
        (ended,) = wait_final(submit_container(account.tenant_id, "echo done"))
        assert ended.state == State.SUCCEEDED
    for ended in wait_final(claimed, waiting):
        assert (ended.state, ended.attempt) == (State.SUCCEEDED, 1)
    wait_until(lambda: not node().troubles, why="it takes commands again", see=node)
    assert worker.alive
    assert_invariants(cluster)
