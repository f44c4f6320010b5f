"""What containers of the guarded network reach: a real engine, real firewall rules, real connections."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import ROOT
from tests.support.engines import Engine as Rig
from tests.support.images import BUSYBOX
from tests.support.outside import ADDRESS, METADATA, listener, outside, reach
from tests.support.waiting import limit, wait_until
from workers.runtimes.base import PrepareFailed
from workers.runtimes.engine.client import Address, Engine
from workers.runtimes.engine.networks import NETWORK, Networks
from workers.vocabulary import pulse
from workers.vocabulary.states import Reason

pytestmark = pytest.mark.invariant

PORT = 7321


def start(engine: Rig, network: str, *command: str) -> str:
    """A container as the runtime makes them, as far as networks matter; returns its id."""
    api = engine.client.api
    config = api.create_host_config(network_mode=network, cap_drop=["ALL"])
    made = api.create_container(BUSYBOX, list(command), host_config=config)["Id"]
    api.start(made)
    return str(made)


def reached(engine: Rig, network: str, address: str, port: int = PORT) -> bool:
    """Does a container of this network get an answer?"""
    made = start(engine, network, "nc", "-w", "10", address, str(port))
    engine.client.api.wait(made, timeout=limit(60))
    said = engine.client.api.logs(made)
    engine.client.api.remove_container(made, force=True)
    return b"reached" in said


def gateway(engine: Rig, network: str) -> str:
    subnet = engine.client.api.inspect_network(network)["IPAM"]["Config"][0]["Subnet"]
    return str(next(ipaddress.ip_network(subnet).hosts()))


def bridge_of(engine: Rig) -> str:
    return str(engine.client.api.inspect_network(NETWORK)["Options"]["com.docker.network.bridge.name"])


def rules(engine: Rig) -> list[str]:
    done = subprocess.run(
        [*engine.enter("--net"), "iptables", "-S"], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_containers_reach_the_world_and_nothing_near(engine: Rig, link: Engine) -> None:
    """The node by any of its addresses, metadata on it and beyond it: no. An ordinary address: yes."""
    here = engine.enter("--net")
    network = Networks(link).bridge()
    assert network == NETWORK
    with outside(engine) as there, listener(here, PORT), listener(there, PORT):
        assert reached(engine, NETWORK, ADDRESS)
        assert not reached(engine, NETWORK, METADATA)
        for own in (gateway(engine, NETWORK), gateway(engine, "bridge"), "198.51.100.1"):
            assert not reached(engine, NETWORK, own), own
            assert reached(engine, "bridge", own), "the engine's plain bridge shows that somebody listens"
        # With the host's network, which a policy opens, all of it.
        assert reached(engine, "host", gateway(engine, NETWORK))
        assert reached(engine, "host", METADATA)
    subprocess.run([*here, "ip", "address", "add", f"{METADATA}/32", "dev", "lo"], check=True)
    try:
        with listener(here, PORT):
            assert not reached(engine, NETWORK, METADATA)
            assert reached(engine, "bridge", METADATA)
    finally:
        subprocess.run([*here, "ip", "address", "del", f"{METADATA}/32", "dev", "lo"], check=True)


def test_containers_do_not_reach_each_other(engine: Rig, link: Engine) -> None:
    """Neither by address nor by a published port."""
    Networks(link).bridge()
    api = engine.client.api
    for network, expected in ((NETWORK, False), ("bridge", True)):
        config = api.create_host_config(network_mode=network, port_bindings={PORT: 7322})
        made = api.create_container(
            BUSYBOX, ["nc", "-ll", "-p", str(PORT), "-e", "echo", "reached"], ports=[PORT], host_config=config
        )["Id"]
        api.start(made)
        found = api.inspect_container(made)["NetworkSettings"]["Networks"][network]["IPAddress"]
        # From the machine itself, and so from the world: what was published is there.
        wait_until(lambda: reach(engine.enter("--net"), "127.0.0.1", 7322), why="it is published")
        assert reached(engine, network, found) is expected
        assert reached(engine, network, gateway(engine, network), 7322) is expected
        assert not reached(engine, NETWORK, gateway(engine, "bridge"), 7322)
        api.remove_container(made, force=True)


def test_flushed_rules_come_back(engine: Rig, link: Engine) -> None:
    """Somebody flushes the firewall, or puts a rule before ours: the next look repairs it."""
    here, guard = engine.enter("--net"), Networks(link)
    assert guard.look() == ""
    expected = [line for line in rules(engine) if "GANTRY" in line]
    assert len(expected) > 5
    assert guard.look() == ""
    assert [line for line in rules(engine) if "GANTRY" in line] == expected, "nothing is done twice"
    spoiling = (
        ["-F"],
        ["-F", "GANTRY-OUT"],
        ["-D", "INPUT", "-i", bridge_of(engine), "-j", "GANTRY-HOST"],
        ["-D", "FORWARD", "-j", "DOCKER-USER"],
        ["-I", "INPUT", "1", "-p", "tcp", "-j", "ACCEPT"],
    )
    for words in spoiling:
        subprocess.run([*here, "iptables", *words], check=True)
        with listener(here, PORT):
            if words == ["-F"]:
                assert reached(engine, NETWORK, gateway(engine, NETWORK)), "without rules it can be reached"
            assert guard.bridge() == NETWORK
            assert not reached(engine, NETWORK, gateway(engine, NETWORK)), words
        ours = [line for line in rules(engine) if "GANTRY" in line or line == "-A FORWARD -j DOCKER-USER"]
        assert len(set(ours)) == len(expected) + 1, words
    subprocess.run([*here, "iptables", "-D", "INPUT", "-p", "tcp", "-j", "ACCEPT"], check=True)


def test_the_guard_survives_the_engine(mortal_engine: Rig) -> None:
    """After a restart of dockerd, which makes its own rules again, ours stand."""
    link = Engine(Address.parse(mortal_engine.url))
    guard = Networks(link)
    assert guard.bridge() == NETWORK
    mortal_engine.kill_daemon()
    assert "does not answer" in guard.look()
    with pytest.raises(PrepareFailed) as caught:
        guard.bridge()
    assert (caught.value.reason, caught.value.ours) == (Reason.RUNTIME, True)
    mortal_engine.start_daemon()
    assert guard.look() == ""
    with listener(mortal_engine.enter("--net"), PORT):
        assert not reached(mortal_engine, NETWORK, gateway(mortal_engine, NETWORK))
    link.close()


def test_a_second_network_of_the_name_is_removed(engine: Rig, link: Engine) -> None:
    """Two workers made it at once. Catches an engine that starts nothing any more: "network is ambiguous"."""
    networks = Networks(link)
    assert networks.look() == ""
    api = engine.client.api
    options = {
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.name": "gantry0000beef",
    }
    second = api.create_network(NETWORK, driver="bridge", options=options, check_duplicate=False)["Id"]
    assert len(api.networks(names=[f"^{NETWORK}$"])) == 2
    assert networks.look() == ""
    assert [item["Id"] for item in api.networks(names=[f"^{NETWORK}$"])] == [networks.identity] != [second]
    api.remove_container(start(engine, networks.bridge(), "true"), force=True)


def test_a_network_of_another_kind_is_refused(mortal_engine: Rig) -> None:
    """Somebody's own network of our name would let containers talk to each other."""
    made = mortal_engine.client.api.create_network(
        NETWORK, driver="bridge", options={"com.docker.network.bridge.name": "gantry0"}
    )
    link = Engine(Address.parse(mortal_engine.url))
    guard = Networks(link)
    assert "talk to each other" in guard.look()
    mortal_engine.client.api.remove_network(made["Id"])
    assert guard.look() == ""
    mortal_engine.client.api.remove_network(NETWORK)
    assert guard.look() == "", "it is made again"
    jumps = [line for line in rules(mortal_engine) if "-j GANTRY-" in line]
    assert len(jumps) == 2, "nothing is left of the one that was removed"
    assert all(bridge_of(mortal_engine) in line for line in jumps)
    link.close()


def test_a_neighbour_guards_it(engine: Rig, link: Engine, tmp_path: Path, settings: Any) -> None:
    """A worker in a container of its own starts nothing before its neighbour says that it is safe."""
    settings.GANTRY_NETWORK_GUARD = str(tmp_path / "guard")
    worker, neighbour = Networks(link), Networks(link, guard_file="")
    assert "not heard" in worker.look()
    assert neighbour.look() == ""
    pulse.write(tmp_path / "guard", "0123", neighbour.trouble)
    assert "another engine" in worker.look()
    pulse.write(tmp_path / "guard", neighbour.identity, "there is no iptables here")
    assert "there is no iptables here" in worker.look()
    with pytest.raises(PrepareFailed):
        worker.bridge()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "network"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "DOCKER_HOST": engine.url,
            "GANTRY_NETWORK_GUARD": str(tmp_path / "guard"),
            "GANTRY_HEARTBEAT_S": "0.2",
            "DATABASE_URL": "postgres://nobody@192.0.2.1/none",
        },
    )
    try:
        wait_until(lambda: worker.look() == "", 60, why="the neighbour is heard")
        assert worker.bridge() == NETWORK
        subprocess.run([*engine.enter("--net"), "iptables", "-F"], check=True)
        wait_until(lambda: any("GANTRY-OUT" in line for line in rules(engine)), why="it looks after them")
        boot, _, *words = (tmp_path / "guard").read_text().split()
        process.terminate()
        assert process.wait(limit(60)) == 0
        assert "not heard" in worker.look(), "a guard that leaves says so"
    finally:
        process.kill()
        process.wait()
    (tmp_path / "guard").write_text(f"{boot} 1.0 {' '.join(words)}\n")
    assert "s old" in worker.look(), "one that was killed is missed"


def test_in_the_engines_network_without_its_processes(engine: Rig, link: Engine) -> None:
    """A process that does not see the engine's, as in a container, knows by the bridge where it is."""
    script = (
        "import django; django.setup();"
        "from workers.runtimes.engine.client import Address, Engine;"
        "from workers.runtimes.engine.networks import Networks;"
        "print(Networks(Engine(Address.from_environment()), guard_file='').look() or 'guarded')"
    )
    apart = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", script]
    environment = {
        "PATH": os.environ["PATH"],
        "DOCKER_HOST": engine.url,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "PYTHONPATH": str(ROOT),
    }

    def said(command: list[str]) -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
        return done.stdout.splitlines()[-1]

    assert said([*engine.enter("--net"), *apart]) == "guarded"
    assert "not visible from here" in said(apart), "in another network than the engine's"


def test_where_it_cannot_be_guarded(engine: Rig, link: Engine, monkeypatch: Any, settings: Any) -> None:
    """An engine on another machine, a worker that is not root: BRIDGE waits, unless an operator decides."""
    remote = Networks(Engine(Address.parse("tcp://192.0.2.1:2375")))
    remote._network = lambda: "gantry0"  # type: ignore[method-assign]
    assert "run a worker on that machine" in remote.look()
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: 1000)
        guard = Networks(link)
        assert "not root" in guard.look()
        with pytest.raises(PrepareFailed) as caught:
            guard.bridge()
        assert caught.value.ours
        assert "GANTRY_CONTAINER_NETWORK=plain" in caught.value.message
    assert guard.look() == ""
    for choice, network in (("plain", "bridge"), ("none", "none")):
        settings.GANTRY_CONTAINER_NETWORK = choice
        assert remote.bridge() == network
