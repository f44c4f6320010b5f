"""Containers and the node around them: trouble by runtime, the guard, what is recorded of the image."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from django.db import connection, transaction

from tests.integration.engine_rows import World
from tests.support.cluster import Cluster
from tests.support.engine import output, run, wait_final, wait_started
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.images import BUSYBOX
from tests.support.waiting import wait_until
from workers import services
from workers.models import Node, Run
from workers.node import registration
from workers.node.registration import Registration
from workers.runs import running
from workers.runtimes.engine.client import Address
from workers.runtimes.engine.client import Engine as Client
from workers.scheduling import claiming, explain
from workers.scheduling.claiming import Memory
from workers.vocabulary.leases import Lease
from workers.vocabulary.specs import ContainerSpec
from workers.vocabulary.states import Reason, State

pytestmark = pytest.mark.django_db(transaction=True)

LABEL = "gantry.run"


def submit(account: Account, *args: str, **more: object) -> int:
    """A container of the test image; returns the run's id."""
    given = {"image": BUSYBOX, "force_pull": False, "cpu_m": 100, "mem_mb": 64, **more}
    spec = ContainerSpec(args=list(args), **given)  # type: ignore[arg-type]
    return services.submit(
        services.Submission(tenant_id=account.tenant_id, family="tasks", spec=spec, name="c", grace_s=1)
    )


def ask(engine: Engine, path: str) -> Any:
    with contextlib.closing(Client(Address.parse(engine.url))) as client:
        return client.ask("GET", path)


def names(engine: Engine) -> dict[int, str]:
    """Run id -> container id of everything that runs on the engine."""
    there = ask(engine, "/containers/json")
    return {int(item["Labels"][LABEL]): item["Id"] for item in there if LABEL in item["Labels"]}


# --- trouble by kind ------------------------------------------------------------------------------------


def beat(node: Node, troubles: dict[str, str]) -> None:
    with open("/dev/null") as lock:  # noqa: PTH123
        held = Registration(node.pk, node.name, node.incarnation, False, lock)
        registration.heartbeat(held, troubles, broker_ok=True)
    node.refresh_from_db()


def test_a_dead_engine_does_not_stop_commands() -> None:
    """Catches: one runtime's trouble that keeps every kind of work away from its node, or none."""
    world = World()
    node = world.node(runtimes=["process", "container"])
    shape = world.add_shape(world.tenant, cpu_m=1000, mem_mb=100, kind="container")
    container = world.submit(shape=shape, kind="container")
    command = world.submit()
    beat(node, {"process": "", "container": "the Docker Engine does not answer"})
    assert node.trouble == ""
    found = claiming.look(node.pk, node.incarnation, Memory(), 16)
    assert [item.lease.run_id for item in found.claimed] == [command]
    told = explain.explain_run(Run.objects.get(pk=container))["reasons"][0]
    assert (told["code"], told["message"]) == (
        "trouble",
        "node n1 takes no container work: the Docker Engine does not answer",
    )
    beat(node, {"process": "", "container": ""})
    found = claiming.look(node.pk, node.incarnation, Memory(), 16)
    assert [item.lease.run_id for item in found.claimed] == [container]


def test_when_every_runtime_is_in_trouble_the_node_takes_no_work() -> None:
    node = World().node(runtimes=["process", "container"])
    beat(node, {"process": "disk full", "container": "disk full"})
    assert (node.trouble, node.troubles) == ("disk full", {"process": "disk full", "container": "disk full"})


def test_the_installation_has_one_name() -> None:
    name = registration.installation()
    assert len(name) == 12
    assert registration.installation() == name


# --- what is told while it is prepared --------------------------------------------------------------------


def told(lease: Lease, message: str) -> set[int]:
    with transaction.atomic(), connection.cursor() as cursor:
        return running.told(cursor, [(lease, "earlier"), (lease, message)])


def test_what_is_being_prepared_is_told_under_the_lease_until_it_starts() -> None:
    """Catches a message of a lost attempt, and one that comes late and hides that it runs."""
    world = World()
    lease = world.claimed(world.node())
    assert told(lease, "Pulling image x: 40 %") == {lease.run_id}
    assert run(lease.run_id).message == "Pulling image x: 40 %"
    stale = Lease(lease.run_id, lease.attempt, lease.epoch - 1)
    assert told(stale, "stale") == set()
    with transaction.atomic(), connection.cursor() as cursor:
        running.started(cursor, [(lease, 0.0, "Container is running")])
        running.tell(cursor, [(lease, {"image_digest": "sha256:abc"})])
    assert told(lease, "late") == set()
    found = run(lease.run_id)
    assert (found.message, found.attempts.get().facts["image_digest"]) == (
        "Container is running",
        "sha256:abc",
    )


# --- a node without an engine ----------------------------------------------------------------------------


def test_without_an_engine_containers_wait_and_say_why(cluster: Cluster, account: Account) -> None:
    cluster.node("n1", DOCKER_HOST=f"unix://{cluster.folder}/nothing.sock")
    waiting = submit(account, "true")
    wait_until(
        lambda: "nothing.sock does not answer" in str(explain.explain_run(run(waiting))["reasons"]),
        why="it says why",
    )
    assert run(waiting).state == State.PENDING


# --- a run ------------------------------------------------------------------------------------------------


def test_a_container_with_a_port_and_what_is_recorded_of_it(
    engine: Engine, cluster: Cluster, account: Account
) -> None:
    """Catches a lost image digest, a port that nobody is told of."""
    cluster.node("n1", DOCKER_HOST=engine.url)
    port = {"container_port": 80, "host_port": 0, "protocol": "tcp"}
    run_id = submit(account, "sh", "-c", "echo out; echo err >&2; sleep 1; exit 3", ports=[port])
    started = wait_started(run_id)
    assert "port 80/tcp is published on " in started.message
    (row,) = wait_final(run_id)
    assert (row.state, row.reason, row.exit_code) == (State.FAILED, Reason.EXIT_CODE, 3)
    assert row.message.startswith("Container exited with status 3 (port 80/tcp is published on ")
    assert (output(run_id), output(run_id, stream=2)) == (b"out\n", b"err\n")
    image = ask(engine, f"/images/{BUSYBOX}/json")
    assert row.attempts.get().facts["image_digest"] == (image["RepoDigests"] or [image["Id"]])[0]


def test_the_scratch_folder_is_the_containers_and_goes_with_it(
    engine: Engine, cluster: Cluster, account: Account
) -> None:
    cluster.node("n1", DOCKER_HOST=engine.url)
    script = 'cd "$GANTRY_SANDBOX" && echo x > file && ls && test "$MESOS_SANDBOX" = "$GANTRY_SANDBOX"'
    (row,) = wait_final(submit(account, "sh", "-c", script))
    assert (row.state, output(row.pk)) == (State.SUCCEEDED, b"file\n")
    wait_until(lambda: not list(cluster.folder.glob("*/scratch/*")), why="its folder is gone")
    wait_until(lambda: not list(cluster.folder.glob("*/containers/*")), why="and its control folder")


# --- the guard --------------------------------------------------------------------------------------------


def test_the_guard_ends_containers_of_a_node_that_is_cut_off(
    engine: Engine, cluster: Cluster, account: Account
) -> None:
    """Catches attempts that overlap; a guard that kills what is never given up, or dies with its worker."""
    ours = submit(account, "sleep", "300")
    never = submit(account, "sleep", "301")
    Run.objects.filter(pk=never).update(node_lost_after_s=0)
    lost = {"GANTRY_NODE_LOST_AFTER_S": "20", "GANTRY_GUARD_MARGIN_S": "8"}
    node = cluster.node("n1", settings=lost, DOCKER_HOST=engine.url)
    for run_id in (ours, never):
        wait_started(run_id)
    before = names(engine)
    assert before.keys() == {ours, never}
    node.kill()
    wait_until(lambda: names(engine) == {never: before[never]}, why="the guard ends the one, not the other")
    cluster.node("n1", settings=lost, DOCKER_HOST=engine.url)
    (row,) = wait_final(ours)
    assert (row.state, row.reason) == (State.FAILED, Reason.UNREACHABLE)
    assert "killed by its node's guard" in row.message
    services.cancel(account.tenant_id, never)
    (row,) = wait_final(never)
    assert row.state == State.CANCELLED


def test_two_workers_of_one_engine_are_told(engine: Engine, cluster: Cluster) -> None:
    """Catches an engine that is offered twice without a word; the node that was there first is named."""
    first = cluster.node("n1", settings=engine.env)
    second = cluster.node("n2", settings=engine.env)
    known = {str(node.attributes["engine_id"]) for node in Node.objects.all()}
    assert known == {ask(engine, "/info")["ID"]}
    wait_until(lambda: "engine.shared" in second.text(), why="the second worker says so")
    told = next(line for line in second.text().splitlines() if "engine.shared" in line)
    assert "n1" in told
    assert "n2" not in told.partition("engine.shared")[2].partition("why")[0].partition("nodes")[2]
    assert "engine.shared" not in first.text()
