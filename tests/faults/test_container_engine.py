"""Faults 13 and 14: the engine is killed, frozen, restarted, not there; a reply of it is lost on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.containers import container_of, containers_of, happened, submit_container
from tests.support.engine import output, run, submit, wait_final, wait_started
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.invariants import (
    assert_invariants,
    assert_once,
    assert_truth,
    begins,
    ledger_command,
    open_ledger,
)
from tests.support.ledger import CONTAINER, note, traces, wait_begun
from tests.support.machine import alive
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt, Node
from workers.vocabulary.states import Reason, State


@pytest.fixture(autouse=True)
def _patient(cluster: Cluster) -> None:
    """Engines take seconds to come back: no node is lost meanwhile."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"


@pytest.fixture
def wire(engine: Engine) -> Iterator[Proxy]:
    """What lies between the worker under test and its engine."""
    with Proxy(str(engine.socket)) as proxy:
        yield proxy


def _by_way_of(wire: Proxy) -> dict[str, str]:
    # Over TCP the engine may be anywhere: its network cannot be guarded from here.
    return {"DOCKER_HOST": f"tcp://127.0.0.1:{wire.port}", "GANTRY_CONTAINER_NETWORK": "plain"}


def _trouble() -> str:
    """What the node's row says of its engine."""
    return str(Node.objects.get(name="n1").troubles.get("container", ""))


# --- 13: it dies ----------------------------------------------------------------------------------------


def test_a_killed_engine_that_keeps_its_containers(
    mortal_engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """live-restore. Catches a second container, an end that is made up, output lost or doubled, a worker that
    is never heard again; commands do not notice."""
    engine = mortal_engine
    engine.stop_daemon()
    engine.start_daemon(live_restore=True)
    worker = cluster.node(settings=engine.env)
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"echo one; while test -e {gate}; do sleep 0.05; done; echo two; sleep 1; echo three"
    run_id = submit_container(
        account.tenant_id, ledger_command(ledger, "a", body, code=5), share=shared_folder
    )
    wait_started(run_id)
    wait_until(lambda: output(run_id) == b"out-a\none\n", why="the first output is stored")
    box = container_of(engine, run_id)["Id"]
    main = engine.main(box)
    engine.kill_daemon()
    command = submit(account.tenant_id, "echo meanwhile")
    wait_final(command)
    assert output(command) == b"meanwhile\n"
    wait_until(_trouble, why="the node knows that its engine is away")
    waiting = submit_container(account.tenant_id, ledger_command(ledger, "waiting"), share=shared_folder)
    wait_until(lambda: _told(account, waiting), why="explain says that the engine is away")
    assert alive(main)
    assert (run(run_id).state, run(waiting).attempt) == (State.RUNNING, 0)
    gate.unlink()
    engine.start_daemon(live_restore=True)
    assert container_of(engine, run_id)["Id"] == box
    (ended, after) = wait_final(run_id, waiting)
    assert (ended.state, ended.exit_code, ended.attempt) == (State.FAILED, 5, 1)
    assert output(run_id) == b"out-a\none\ntwo\nthree\n"
    assert (after.state, after.attempt) == (State.SUCCEEDED, 1)
    assert begins(ledger) == {"a": 1, "waiting": 1}
    assert worker.alive
    wait_until(lambda: not _trouble(), why="the node has nothing to complain of any more")
    assert_invariants(cluster, engines=[engine])


def _told(account: Account, run_id: int) -> list[str]:
    """What explain says of a node's trouble."""
    reasons = services.explain(account.tenant_id, run_id)["reasons"]
    assert isinstance(reasons, list)
    return [reason["message"] for reason in reasons if "ngine" in reason["message"]]


def test_a_killed_engine_that_takes_its_containers_along(
    mortal_engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """No live-restore. Catches success, or waiting for ever, where the engine killed what ran; the next try
    that is not made; an attempt that overlaps with the one before."""
    engine = mortal_engine
    cluster.node(settings=engine.env)
    ledger, hold = open_ledger(shared_folder), shared_folder / "hold"
    hold.touch()
    body = f"while test -e {hold}; do sleep 0.05; done"
    plain = submit_container(account.tenant_id, ledger_command(ledger, "plain", body), share=shared_folder)
    again = submit_container(
        account.tenant_id, ledger_command(ledger, "again", body), share=shared_folder, retries=1
    )
    for run_id in (plain, again):
        wait_started(run_id)
    wait_begun(ledger, "plain", "again")
    boxes = [container_of(engine, run_id)["Id"] for run_id in (plain, again)]
    engine.kill_daemon()
    engine.start_daemon()
    assert not any(engine.pids(box) for box in boxes), "it killed them, else this proves nothing"
    (ended,) = wait_final(plain)
    assert (ended.state, ended.attempt) == (State.FAILED, 1)
    assert ended.reason in (Reason.EXIT_CODE, Reason.LOST, Reason.RUNTIME)
    wait_until(lambda: run(again).attempt == 2 and run(again).started_at, 60, why="the next try runs")
    hold.unlink()
    (mended,) = wait_final(again)
    assert (mended.state, mended.attempt) == (State.SUCCEEDED, 2)
    assert_once(ledger, {"plain": plain, "again": again})
    assert_invariants(cluster, engines=[engine])


@pytest.mark.parametrize("live_restore", [True, False])
def test_containers_are_submitted_while_the_engine_is_restarted(
    mortal_engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, live_restore: bool
) -> None:
    """Catches a container that is made twice because the engine fell silent in the middle, one that is never
    made, and attempts that overlap. An attempt that died with the engine may have begun."""
    engine = mortal_engine
    cluster.node(settings=engine.env)
    ledger = open_ledger(shared_folder)
    runs: dict[str, int] = {}
    for restart in range(2):
        for number in range(6):
            name = f"c{restart}-{number}"
            begin, end = (note(ledger, what, name, CONTAINER) for what in ("begin", "end"))
            command = f"{begin}; sleep 0.3; {end}"
            runs[name] = submit_container(account.tenant_id, command, share=shared_folder, retries=5)
        so_far = len(begins(ledger)) + 2
        _wait_begun(ledger, so_far)
        engine.kill_daemon()
        engine.start_daemon(live_restore=live_restore)
    for ended in wait_final(*runs.values(), timeout_s=120):
        assert ended.state == State.SUCCEEDED, ended.message
    for name, run_id in runs.items():
        tries = Attempt.objects.filter(run_id=run_id).exclude(reason=Reason.DROPPED).count()
        found = traces(ledger, name)
        assert len(found) <= tries, f"I2: {name} began {len(found)} times in {tries} attempts"
        assert found[-1].ended
        for earlier, later in pairwise(found):
            assert earlier.last < later.began, f"I2: attempts of {name} overlap: {earlier} and {later}"
    assert_invariants(cluster, engines=[engine])
    assert not engine.pids(""), "I4: processes are left of containers that the engine has forgotten"


def test_a_container_that_its_engine_takes_for_running(
    mortal_engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a run that waits for ever for a container that has ended.

    After a restart in the middle of a start an engine may be told of the start after the end. Here it is told
    of one that never was, by the same message, for a container in the place of the first attempt's.
    """
    engine = mortal_engine
    worker = cluster.node(settings=engine.env, GANTRY_WAIT_BROKER="0")
    ledger, mark = open_ledger(shared_folder), shared_folder / "mark"
    command = ledger_command(ledger, "a", f"test -e {mark} || {{ touch {mark}; sleep 600; }}")
    run_id = submit_container(account.tenant_id, command, share=shared_folder, retries=1)
    wait_until(mark.exists, 60, why="the container runs")
    wait_started(run_id)
    worker.kill()
    first = container_of(engine, run_id)
    engine.client.api.remove_container(first["Id"], force=True)
    body = {**first["Config"], "HostConfig": first["HostConfig"]}
    ghost = engine.client.api.create_container_from_config(body, first["Name"].strip("/"))["Id"]
    engine.tell_started(ghost)
    wait_until(lambda: container_of(engine, run_id)["State"]["Running"], why="the engine says that it runs")
    again = cluster.node(settings=engine.env, GANTRY_WAIT_BROKER="0")
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 2)
    assert Attempt.objects.get(run_id=run_id, number=1).reason == Reason.LOST
    assert begins(ledger) == {"a": 2}
    assert "container.ghost" in again.text()
    assert_invariants(cluster, engines=[engine])


def _wait_begun(ledger: Path, how_many: int) -> None:
    wait_until(lambda: len(begins(ledger)) >= how_many, 60, 0.005, why=f"{how_many} containers have begun")


def test_a_frozen_engine(
    mortal_engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a worker that hangs with its engine: commands wait, cancels are not heard, leases run out."""
    engine = mortal_engine
    worker = cluster.node(settings=engine.env)
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"while test -e {gate}; do sleep 0.05; done"
    run_id = submit_container(
        account.tenant_id, ledger_command(ledger, "a", body, code=5), share=shared_folder
    )
    doomed = submit_container(account.tenant_id, "trap '' TERM; sleep 600", grace_s=1)
    for each in (run_id, doomed):
        wait_started(each)
    box = container_of(engine, run_id)["Id"]
    engine.freeze()
    command = submit(account.tenant_id, "echo meanwhile")
    wait_final(command)
    assert services.cancel(account.tenant_id, doomed).accepted
    wait_until(_trouble, why="the node says that its engine is silent")
    assert (run(run_id).state, run(run_id).lease_epoch) == (State.RUNNING, 1)
    engine.thaw()
    (cancelled,) = wait_final(doomed)
    assert cancelled.state == State.CANCELLED
    assert container_of(engine, run_id)["Id"] == box
    gate.unlink()
    (ended,) = wait_final(run_id)
    assert (ended.exit_code, ended.attempt) == (5, 1)
    assert begins(ledger) == {"a": 1}
    assert worker.alive
    assert_invariants(cluster, engines=[engine])


def test_no_engine_when_the_worker_starts(
    mortal_engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a worker that ends, or never looks again. Commands run meanwhile, containers say why."""
    engine = mortal_engine
    engine.stop_daemon()
    worker = cluster.node(settings=engine.env)
    ledger = open_ledger(shared_folder)
    waiting = submit_container(account.tenant_id, ledger_command(ledger, "a"), share=shared_folder)
    command = submit(account.tenant_id, "true")
    wait_final(command)
    wait_until(lambda: _told(account, waiting), why="explain says that the engine is away")
    assert run(waiting).attempt == 0
    engine.start_daemon()
    wait_final(waiting)
    assert_once(ledger, {"a": waiting})
    assert_truth(ledger, "a", waiting)
    assert worker.alive
    assert_invariants(cluster, engines=[engine])


# --- 14: a reply is lost --------------------------------------------------------------------------------

#: What was asked of the engine when its reply is thrown away, and the connection cut.
_UNANSWERED: dict[str, bytes | re.Pattern[bytes]] = {
    "create": b"/containers/create?",
    "start": b"/start HTTP/1.1",
    "inspect": re.compile(rb"/containers/gantry-\w+/json HTTP"),
    "remove": b"DELETE /",
}


@pytest.mark.parametrize("what", [*_UNANSWERED])
def test_a_reply_that_never_comes(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, wire: Proxy, what: str
) -> None:
    """Catches a worker that repeats, or forgets, what the engine has done without being able to say so."""
    worker = cluster.node(settings=_by_way_of(wire))
    ledger = open_ledger(shared_folder)
    warm = submit_container(account.tenant_id, ledger_command(ledger, "warm"), share=shared_folder)
    wait_final(warm)
    wait_until(lambda: not containers_of(engine, warm), why="the first one is cleaned up")
    wire.drop_reply(_UNANSWERED[what], then=b"")
    command = ledger_command(ledger, "a", "sleep 0.7", code=7)
    run_id = submit_container(account.tenant_id, command, share=shared_folder)
    wait_until(wire.dropped.is_set, why=f"the reply to {what} is lost")
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.exit_code, ended.attempt) == (State.FAILED, 7, 1)
    assert output(run_id) == b"out-a\n"
    assert_truth(ledger, "a", run_id, 7)
    assert begins(ledger) == {"warm": 1, "a": 1}
    assert_invariants(cluster, engines=[engine])
    done = happened(engine, run_id)
    assert (done["create"], done["start"], done["destroy"]) == (1, 1, 1)
    assert worker.alive


@pytest.mark.parametrize("what", ["create", "start"])
def test_a_request_that_never_arrives(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, wire: Proxy, what: str
) -> None:
    """The engine is cut off when it is asked, for some seconds. Catches a run that is lost, or runs twice."""
    cluster.node(settings=_by_way_of(wire))
    ledger = open_ledger(shared_folder)
    warm = submit_container(account.tenant_id, ledger_command(ledger, "warm"), share=shared_folder)
    wait_final(warm)
    wire.drop_reply(_UNANSWERED[what], then=b"")
    command = ledger_command(ledger, "a", "sleep 0.7", code=7)
    run_id = submit_container(account.tenant_id, command, share=shared_folder)
    wait_until(wire.dropped.is_set, every_s=0.002, why=f"the reply to {what} is lost")
    wire.cut()
    wait_until(lambda: _trouble() or run(run_id).state == State.PENDING, why="it is noticed")
    wire.mend()
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.exit_code) == (State.FAILED, 7)
    assert begins(ledger) == {"warm": 1, "a": 1}
    assert_truth(ledger, "a", run_id, 7)
    assert_invariants(cluster, engines=[engine])


def test_a_log_stream_that_is_cut_again_and_again(
    engine: Engine, cluster: Cluster, account: Account, wire: Proxy
) -> None:
    """Catches a cut stream that is taken for the end, and lines that are lost or stored twice (I6)."""
    cluster.node(settings=_by_way_of(wire))
    script = "for i in $(seq 300); do echo line $i; echo err $i >&2; usleep 10000; done; printf last"
    run_id = submit_container(account.tenant_id, script)
    wait_started(run_id)
    for cut in range(4):
        wait_until(lambda: f"line {cut * 40 + 5}\n".encode() in output(run_id), why="output comes")  # noqa: B023
        wire.cut()
        wire.mend()
    (ended,) = wait_final(run_id)
    assert ended.exit_code == 0
    assert output(run_id).decode() == "".join(f"line {i}\n" for i in range(1, 301)) + "last"
    assert output(run_id, stream=2).decode() == "".join(f"err {i}\n" for i in range(1, 301))
    assert_invariants(cluster, engines=[engine])
