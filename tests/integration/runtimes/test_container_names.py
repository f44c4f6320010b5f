"""Names of containers say nothing to their neighbours, and whoever takes over finds what it takes over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.nodes import INSTALLATION, NODE, claimed, make_runtime
from tests.support.engines import Engine as Rig
from tests.support.images import BUSYBOX
from tests.support.waiting import limit
from workers.runtimes.base import Presence
from workers.runtimes.container.names import Names
from workers.runtimes.container.runtime import ContainerRuntime
from workers.runtimes.engine.client import Address, Engine
from workers.vocabulary.specs import ContainerSpec

OURS = {"gantry.installation": INSTALLATION, "gantry.node": NODE}
SPEC = ContainerSpec(image=BUSYBOX, args=["sleep", "1000"], mem_mb=64, cpu_m=100, force_pull=False).to_json()


def labels(run_id: int) -> dict[str, str]:
    return {**OURS, "gantry.run": str(run_id), "gantry.attempt": "1"}


@pytest.fixture
def link(engine: Rig) -> Iterator[Engine]:
    found = Engine(Address.parse(engine.url))
    yield found
    found.close()


def test_a_name_says_nothing_and_is_the_same_for_whoever_knows_the_key() -> None:
    names = Names(INSTALLATION, OURS, b"key")
    name = names.of(71, 1)
    assert name == Names(INSTALLATION, OURS, b"key").of(71, 1)
    assert len({name, names.of(71, 2), names.of(72, 1), Names(INSTALLATION, OURS, b"other").of(71, 1)}) == 4
    assert INSTALLATION not in name
    assert "-71" not in name


def test_a_neighbour_learns_no_run_from_the_engines_dns(engine: Rig) -> None:
    """Catches names made of numbers: on a network of one's own the engine tells them for addresses, and the
    other way round."""
    api, names = engine.client.api, Names(INSTALLATION, OURS, b"key")
    network = api.create_network("neighbours", driver="bridge", labels={"gantry": "test"})["Id"]
    made = []
    for run_id in (71, 72):
        config = api.create_host_config(network_mode="neighbours")
        made.append(
            api.create_container(
                BUSYBOX,
                ["sleep", "1000"],
                host_config=config,
                labels=labels(run_id),
                name=names.of(run_id, 1),
            )["Id"]
        )
        api.start(made[-1])
    address = api.inspect_container(made[1])["NetworkSettings"]["Networks"]["neighbours"]["IPAddress"]

    def asked(what: str) -> str:
        order = api.exec_create(made[0], ["nslookup", what, "127.0.0.11"])["Id"]
        return str(api.exec_start(order).decode())

    try:
        told = asked(address)
        assert names.of(72, 1) in told, "the engine's DNS does not answer here: nothing is proved"
        assert "72-1" not in told
        assert address not in asked(f"gantry-{INSTALLATION}-72-1")
    finally:
        for item in made:
            api.remove_container(item, force=True)
        api.remove_network(network)


def test_what_an_earlier_version_has_named_otherwise_is_taken_over_and_removed(
    engine: Rig, tmp_path: Path
) -> None:
    """Catches an upgrade that takes running containers for lost, or leaves them behind for ever."""
    api = engine.client.api
    for run_id in (71, 72):
        made = api.create_container(
            BUSYBOX, ["sleep", "1000"], labels=labels(run_id), name=f"gantry-{INSTALLATION}-{run_id}-1"
        )["Id"]
        api.start(made)
    runtime, run = make_runtime("container", tmp_path, engine.url), claimed("container", 71, SPEC)
    assert isinstance(runtime, ContainerRuntime)
    folder = tmp_path / "containers" / "71-1"
    folder.mkdir(parents=True)
    (folder / "launched").touch()
    assert runtime.presence(run) is Presence.RUNNING
    runtime.stop(run, "cancel", 0.0)
    result = runtime.wait(run, limit(30))
    assert result is not None
    assert (result.killed, result.lost) == ("cancel", False)
    runtime.cleanup(71, 1)
    # Nobody's: what the search for orphans does.
    assert runtime.attempts() == [(72, 1)]
    runtime.kill_orphan(72, 1)
    runtime.cleanup(72, 1)
    assert not engine.containers(**OURS)
    assert runtime.attempts() == []


def test_names_are_learnt_from_labels(engine: Rig, link: Engine) -> None:
    """Only what differs from the rule is remembered, and forgotten with its container."""
    api, names = engine.client.api, Names(INSTALLATION, OURS, b"key")
    rule = names.of(73, 1)
    made = [
        api.create_container(BUSYBOX, ["true"], labels=labels(run_id), name=name)["Id"]
        for run_id, name in ((73, rule), (74, "somebody-elses-idea"))
    ]
    try:
        assert names.listed(link) == {(73, 1), (74, 1)}
        assert (names.of(73, 1), names.of(74, 1)) == (rule, "somebody-elses-idea")
        names.forget(74, 1)
        assert names.of(74, 1) != "somebody-elses-idea"
        assert names.listed(link, 74) == {(74, 1)}
    finally:
        for item in made:
            api.remove_container(item, force=True)
