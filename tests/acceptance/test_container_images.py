"""Containers as tenants meet them: private registries, policies that change, fixed ports, networks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.api.walk import rows
from tests.support import images as rig
from tests.support.cluster import Cluster
from tests.support.engine import output, run, wait_final, wait_started
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.images import BUSYBOX, PASSWORD, USER, Registry
from tests.support.invariants import assert_invariants
from tests.support.outside import listener
from tests.support.waiting import wait_until
from workers import services
from workers.models import HostPort
from workers.tenants import registries, tenancy
from workers.vocabulary.specs import ContainerSpec
from workers.vocabulary.states import Reason, State

SETTINGS = {"GANTRY_REGISTRY_RETRY_S": "1"}


@pytest.fixture
def closed(engine: Engine) -> Iterator[Registry]:
    with Registry(engine, port=5003, closed=True) as found:
        yield found


def submit(account: Account, *args: str, image: str = BUSYBOX, **more: Any) -> int:
    given = {"cpu_m": 100, "mem_mb": 64, "force_pull": False, **more}
    spec = ContainerSpec(image=image, args=list(args), **given)
    return services.submit(
        services.Submission(tenant_id=account.tenant_id, family="tasks", spec=spec, name="c", grace_s=1)
    )


def reasons(account: Account, run_id: int) -> list[dict[str, Any]]:
    found: Any = services.explain(account.tenant_id, run_id)
    return list(found["reasons"])


def test_private_images(
    closed: Registry, engine: Engine, cluster: Cluster, account: Account, stranger: Account
) -> None:
    """One tenant's credentials pull for that tenant only, and are found nowhere afterwards."""
    name = closed.push(BUSYBOX, "secret/app:1")
    rig.forget(engine, name)
    registries.put(account.tenant_id, closed.address, USER, PASSWORD)
    node = cluster.node(settings={**engine.env, **SETTINGS})
    kept = submit(account, "sleep", "600", image=name, force_pull=True)
    wait_started(kept)
    inspected = json.dumps(engine.containers())
    theirs = [submit(stranger, "true", image=name, force_pull=force) for force in (True, False)]
    for row in wait_final(*theirs):
        assert (row.state, row.reason) == (State.FAILED, Reason.IMAGE)
        assert "/api/v1/registries/" in row.message
    services.cancel(account.tenant_id, kept)
    (mine,) = wait_final(kept)
    assert mine.state == State.CANCELLED
    assert mine.attempts.get().facts["image_digest"].startswith(f"{closed.address}/secret/app@sha256:")
    for text in (inspected, node.text(), str(rows()), engine.log()):
        assert PASSWORD not in text
    rig.forget(engine, name)
    assert_invariants(cluster)


def test_a_policy_that_changed(engine: Engine, cluster: Cluster, account: Account) -> None:
    """What was accepted before and is not allowed any more does not start; it says why."""
    waiting = [
        submit(account, "true"),
        submit(account, "true", network="HOST"),
        submit(account, "true", volumes=[{"container_path": "/x", "host_path": "/etc", "mode": "RO"}]),
    ]
    tenancy.update_tenant(
        "default", opened={"images": ["other/*"], "volumes": True, "volume_paths": ["/srv"]}
    )
    cluster.node(settings={**engine.env, **SETTINGS})
    found = wait_final(*waiting)
    assert [(row.state, row.reason) for row in found] == [(State.FAILED, Reason.REJECTED)] * 3
    assert "not among those that this tenant may use: other/*" in found[0].message
    assert "does not allow host_network any more" in found[1].message
    assert engine.containers() == []
    assert_invariants(cluster)


def test_a_fixed_port_is_held_by_one(engine: Engine, cluster: Cluster, account: Account) -> None:
    """The second waits and says so; it starts when the first has ended."""
    tenancy.update_tenant("default", opened={"host_ports": True})
    cluster.node(settings={**engine.env, **SETTINGS})
    ports = [{"container_port": 80, "host_port": 8099, "protocol": "tcp"}]
    serve = ("nc", "-ll", "-p", "80", "-e", "echo", "reached")
    first = submit(account, *serve, ports=ports)
    wait_started(first)
    second = submit(account, *serve, ports=ports)
    told = wait_until(
        lambda: [reason for reason in reasons(account, second) if reason["code"] == "host_port"],
        why="explain names the port",
        see=lambda: reasons(account, second),
    )
    assert told[0]["message"] == "host port 8099/tcp is taken on node n1 by another of your runs"

    def answers() -> bool:
        # The engine takes connections for a container that does not listen yet.
        with contextlib.suppress(OSError), engine.connect(8099) as link:
            return link.recv(16) == b"reached\n"
        return False

    wait_until(answers, why="the first one answers")
    services.cancel(account.tenant_id, first)
    wait_started(second)
    wait_until(answers, why="the second one answers")
    assert list(HostPort.objects.values_list("run", "port")) == [(second, "8099/tcp")]
    services.cancel(account.tenant_id, second)
    wait_final(first, second)
    assert not HostPort.objects.exists()
    assert_invariants(cluster)


def test_what_containers_reach(engine: Engine, cluster: Cluster, account: Account) -> None:
    """BRIDGE does not reach the node, HOST does, NONE has no network at all."""
    cluster.node(settings={**engine.env, **SETTINGS})
    tenancy.update_tenant("default", opened={"host_network": True})
    first = submit(account, "ip", "route")
    wait_final(first)
    subnet = output(first).decode().split("src")[1].split()[0].rpartition(".")[0]
    with listener(engine.enter("--net"), 7323):
        reach = ("nc", "-w", "10", f"{subnet}.1", "7323")
        runs = [submit(account, *reach, network=network) for network in ("BRIDGE", "HOST", "NONE")]
        wait_final(*runs)
    assert [b"reached" in output(item) for item in runs] == [False, True, False]
    assert_invariants(cluster)


def test_where_the_network_cannot_be_guarded(engine: Engine, cluster: Cluster, account: Account) -> None:
    """Containers wait and say why, commands go on; an operator may decide otherwise."""
    engine.client.api.create_network("gantry", driver="bridge")
    node = cluster.node(settings={**engine.env, **SETTINGS})
    waiting = submit(account, "true")
    told = wait_until(
        lambda: [reason for reason in reasons(account, waiting) if "network" in reason["message"]],
        why="explain names the network",
        see=lambda: reasons(account, waiting),
    )
    assert "the engine's network gantry" in told[0]["message"]
    node.wait_said("network.unguarded")
    assert run(waiting).state == State.PENDING
    engine.client.api.remove_network("gantry")
    (row,) = wait_final(waiting)
    assert row.state == State.SUCCEEDED
    assert_invariants(cluster)
