"""What containers of the guarded network reach: a real engine, real firewall rules, real connections."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import subprocess
import sys
from collections.abc import Iterator
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
from workers.runtimes.engine.firewall import digits
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


@contextlib.contextmanager
def guarding(engine: Rig, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of an installation that guards this engine's network and says so in ``file``."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "network"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "DOCKER_HOST": engine.url,
            "GANTRY_NETWORK_GUARD": str(file),
            "GANTRY_HEARTBEAT_S": "0.2",
            "DATABASE_URL": "postgres://nobody@192.0.2.1/none",
        },
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def told(file: Path) -> list[str]:
    """What it says: the network's id and its trouble, "" where it has none; nothing while it says nothing."""
    try:
        identity, *trouble = pulse.read(file, limit(60))
    except pulse.Silent:
        return []
    return [identity, " ".join(trouble)]


def test_containers_reach_the_world_and_nothing_near(engine: Rig, link: Engine) -> None:
    """The node by any of its addresses, metadata on it and beyond it: no. An ordinary address: yes."""
    here = engine.enter("--net")
    network = Networks(link, "lab").bridge()
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
    Networks(link, "lab").bridge()
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


def test_flushed_rules_come_back(engine: Rig, link: Engine, settings: Any) -> None:
    """Somebody flushes the firewall, or puts a rule before ours: the next look repairs it."""
    settings.GANTRY_HEARTBEAT_S = 0.0  # that these are many within a short time is the next test's
    here, guard = engine.enter("--net"), Networks(link, "lab")
    assert guard.look() == ""
    # Other installations of this session's tests have guarded the same engine, each with chains of its own.
    ours = f"-{digits('lab')}-{digits(bridge_of(engine))}"
    expected = [line for line in rules(engine) if ours in line]
    assert len(expected) > 5
    assert guard.look() == ""
    assert [line for line in rules(engine) if ours in line] == expected, "nothing is done twice"
    jump = next(line for line in expected if line.startswith("-A INPUT"))
    chain = next(line.split()[1] for line in expected if line.startswith("-N GANTRY-OUT"))
    spoiling = (
        ["-F"],
        ["-F", chain],
        ["-D", *jump.split()[1:]],
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
        found = [line for line in rules(engine) if ours in line or line == "-A FORWARD -j DOCKER-USER"]
        assert len(set(found)) == len(expected) + 1, words
    subprocess.run([*here, "iptables", "-D", "INPUT", "-p", "tcp", "-j", "ACCEPT"], check=True)


def test_rules_that_do_not_hold_stop_containers(engine: Rig, link: Engine) -> None:
    """Somebody flushes them again and again. Catches a log line as the only sign that half of all connections
    get through.
    """
    guard = Networks(link, "lab")
    for number in range(4):
        assert ("3 times" in guard.look()) is (number == 3), guard.trouble
        subprocess.run([*engine.enter("--net"), "iptables", "-F"], check=True)
    with pytest.raises(PrepareFailed, match="4 times within 60 s") as caught:
        guard.bridge()
    assert caught.value.ours
    assert any(line.startswith("-A GANTRY-OUT-") for line in rules(engine)), "they are set all the same"


def test_an_engine_each_on_one_machine(neighbours: tuple[Rig, Rig], tmp_path: Path) -> None:
    """Two installations, an engine each, their guards at work. Catches chains that both call their own: each
    took the other's away every few seconds.
    """
    with contextlib.ExitStack() as stack:
        files = [tmp_path / str(number) / "guard" for number in range(2)]
        for rig, file in zip(neighbours, files, strict=True):
            file.parent.mkdir()
            stack.enter_context(guarding(rig, file))
            wait_until(lambda file=file: told(file)[1:] == [""], why="it guards")  # type: ignore[misc]
        before = [line for line in rules(neighbours[0]) if "GANTRY" in line]
        assert len([line for line in before if "-j GANTRY" in line]) == 4, before
        for _ in range(3):
            for rig, file in zip(neighbours, files, strict=True):
                was = file.read_text()
                wait_until(lambda file=file, was=was: file.read_text() != was, why="it looks again")  # type: ignore[misc]
                assert told(file)[1:] == [""]
                assert [line for line in rules(rig) if "GANTRY" in line] == before
        with listener(neighbours[0].enter("--net"), PORT):
            for rig in neighbours:
                assert reached(rig, "bridge", gateway(rig, "bridge"))
                assert not reached(rig, NETWORK, gateway(rig, NETWORK))


def test_two_installations_on_one_engine(engine: Rig, link: Engine, settings: Any) -> None:
    """Each with networks of its own to deny: what one sets the other leaves alone."""
    guards = []
    for name in ("lab", "clinic"):
        settings.GANTRY_CONTAINER_DENY_NETWORKS = [f"192.0.2.{len(name)}/32"]
        guards.append(Networks(link, name))
        assert guards[-1].look() == ""
    before = rules(engine)
    assert {line.split()[3] for line in before if "-d 192.0.2." in line} == {"192.0.2.3/32", "192.0.2.6/32"}
    for guard in [*guards, *guards]:
        assert guard.look() == ""
        assert rules(engine) == before


@pytest.mark.parametrize("shared", [False, True])
def test_chains_of_an_earlier_version(engine: Rig, link: Engine, shared: bool) -> None:
    """All installations shared them: what is ours goes, what another one still uses stays with its jumps."""
    assert Networks(link, "lab").look() == ""
    here, bridge = engine.enter("--net"), bridge_of(engine)
    hooks = (("INPUT", "GANTRY-HOST"), ("DOCKER-USER", "GANTRY-OUT"))
    for hook, chain in hooks:
        subprocess.run([*here, "iptables", "-N", chain], check=True)
        subprocess.run([*here, "iptables", "-A", chain, "-j", "REJECT"], check=True)
        for whose in (bridge, "gantry00000000", *(["lo"] if shared else [])):
            subprocess.run([*here, "iptables", "-I", hook, "1", "-i", whose, "-j", chain], check=True)
    Networks(link, "lab").look()
    left = [line for line in rules(engine) if any(line.endswith(f" {chain}") for _, chain in hooks)]
    try:
        if shared:
            assert [line for line in left if "-j" in line] == [
                f"-A {hook} -i lo -j {chain}" for hook, chain in hooks
            ]
        else:
            assert left == []
    finally:
        for hook, chain in hooks if shared else ():
            subprocess.run([*here, "iptables", "-D", hook, "-i", "lo", "-j", chain], check=True)
            subprocess.run([*here, "iptables", "-F", chain], check=True)
            subprocess.run([*here, "iptables", "-X", chain], check=True)


def test_the_guard_survives_the_engine(mortal_engine: Rig) -> None:
    """After a restart of dockerd, which makes its own rules again, ours stand."""
    link = Engine(Address.parse(mortal_engine.url))
    guard = Networks(link, "lab")
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
    networks = Networks(link, "lab")
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
    guard = Networks(link, "lab")
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
    worker, neighbour = Networks(link, "lab"), Networks(link, "lab", guard_file="")
    assert "not heard" in worker.look()
    assert neighbour.look() == ""
    pulse.write(tmp_path / "guard", "0123", neighbour.trouble)
    assert "another engine" in worker.look()
    pulse.write(tmp_path / "guard", neighbour.identity, "there is no iptables here")
    assert "there is no iptables here" in worker.look()
    with pytest.raises(PrepareFailed):
        worker.bridge()
    with guarding(engine, tmp_path / "guard") as process:
        wait_until(lambda: worker.look() == "", 60, why="the neighbour is heard")
        assert worker.bridge() == NETWORK
        subprocess.run([*engine.enter("--net"), "iptables", "-F"], check=True)
        wait_until(lambda: any("GANTRY-OUT" in line for line in rules(engine)), why="it looks after them")
        boot, _, *words = (tmp_path / "guard").read_text().split()
        process.terminate()
        assert process.wait(limit(60)) == 0
        assert "not heard" in worker.look(), "a guard that leaves says so"
    (tmp_path / "guard").write_text(f"{boot} 1.0 {' '.join(words)}\n")
    assert "s old" in worker.look(), "one that was killed is missed"


def test_in_the_engines_network_without_its_processes(engine: Rig, link: Engine) -> None:
    """A process that does not see the engine's, as in a container, knows by the bridge where it is."""
    script = (
        "import django; django.setup();"
        "from workers.runtimes.engine.client import Address, Engine;"
        "from workers.runtimes.engine.networks import Networks;"
        "print(Networks(Engine(Address.from_environment()), 'lab', guard_file='').look() or 'guarded')"
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
    remote = Networks(Engine(Address.parse("tcp://192.0.2.1:2375")), "lab")
    remote._network = lambda: "gantry0"  # type: ignore[method-assign]
    assert "run a worker on that machine" in remote.look()
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: 1000)
        guard = Networks(link, "lab")
        assert "not root" in guard.look()
        with pytest.raises(PrepareFailed) as caught:
            guard.bridge()
        assert caught.value.ours
        assert "GANTRY_CONTAINER_NETWORK=plain" in caught.value.message
    assert guard.look() == ""
    for choice, network in (("plain", "bridge"), ("none", "none")):
        settings.GANTRY_CONTAINER_NETWORK = choice
        assert remote.bridge() == network
