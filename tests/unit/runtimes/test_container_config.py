"""The engine's create call for a container: limits, hardening, what policies opened."""

from __future__ import annotations

from typing import Any

import pytest

from workers.runtimes.container.config import SANDBOX, Place, create_body, published, ran_s
from workers.runtimes.container.faults import refused_start
from workers.runtimes.engine.client import Address, EngineRefused
from workers.runtimes.engine.image import Image
from workers.vocabulary.docker_options import BadParameter
from workers.vocabulary.specs import ContainerSpec
from workers.vocabulary.states import Reason

IMAGE = Image(id="sha256:abc", digest="r/x@sha256:def", user="", working_dir="/app")
PLACE = Place({"gantry.run": "1"}, "/scratch/c1-1/sandbox")


def body(image: Image = IMAGE, place: Place = PLACE, **spec: Any) -> dict[str, Any]:
    return create_body(ContainerSpec(image="x", **spec), image, place)


def test_a_plain_container_is_hardened_and_limited() -> None:
    """Catches a limit that is not set, a capability that is kept, output that is not byte-exact."""
    made = body(cpu_m=1500, mem_mb=256, args=["a", "b"], env={"A": "b"})
    host = made["HostConfig"]
    assert made["Image"] == "sha256:abc"
    assert made["Cmd"] == ["a", "b"]
    assert f"GANTRY_SANDBOX={SANDBOX}" in made["Env"]
    assert "A=b" in made["Env"]
    assert (host["Memory"], host["MemorySwap"]) == (256 * 1024**2, 256 * 1024**2)
    assert (host["CpuPeriod"], host["CpuQuota"]) == (100_000, 150_000)
    assert "NanoCpus" not in host
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Init"] is True
    assert host["PidsLimit"] == 4096
    assert host["AutoRemove"] is False
    assert host["NetworkMode"] == "bridge"
    assert host["LogConfig"]["Type"] == "local"
    assert host["Mounts"] == [{"Type": "bind", "Source": "/scratch/c1-1/sandbox", "Target": SANDBOX}]
    assert "Privileged" not in host
    assert "User" not in made


def test_the_working_directory_is_the_images_unless_there_are_files_or_it_has_none() -> None:
    assert "WorkingDir" not in body()
    assert body(uris=["http://a/b"])["WorkingDir"] == SANDBOX
    assert body(image=Image("sha256:abc", "d"))["WorkingDir"] == SANDBOX
    assert body(uris=["http://a/b"], parameters=[{"key": "workdir", "value": "/w"}])["WorkingDir"] == "/w"


def test_a_user_is_forced_on_images_that_name_none() -> None:
    place = Place({}, "/s", user="65534:65534")
    assert body(place=place)["User"] == "65534:65534"
    assert "User" not in body(image=Image("i", "d", user="app"), place=place)
    assert body(place=place, parameters=[{"key": "user", "value": "7"}])["User"] == "7"


def test_what_policies_opened() -> None:
    made = body(
        network="HOST",
        privileged=True,
        volumes=[{"container_path": "/c", "host_path": "/h", "mode": "RO"}],
        ports=[{"container_port": 80, "host_port": 8080, "protocol": "tcp"}],
    )
    host = made["HostConfig"]
    assert host["NetworkMode"] == "host"
    assert host["Privileged"] is True
    assert "CapDrop" not in host
    assert host["Mounts"][1] == {"Type": "bind", "Source": "/h", "Target": "/c", "ReadOnly": True}
    assert "PortBindings" not in host


def test_ports_are_published_and_told() -> None:
    spec = ContainerSpec(
        image="x",
        ports=[
            {"container_port": 80, "host_port": 8080, "protocol": "tcp"},
            {"container_port": 53, "host_port": 0, "protocol": "udp"},
        ],
    )
    made = create_body(spec, IMAGE, PLACE)
    assert made["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert made["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostPort": "8080"}],
        "53/udp": [{"HostPort": ""}],
    }
    inspected = {
        "NetworkSettings": {
            "Ports": {
                "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
                "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}],
            }
        }
    }
    told = "port 80/tcp is published on 8080, port 53/udp is published on 32768"
    assert published(spec, inspected) == told


def test_a_user_network_is_named_by_a_parameter() -> None:
    named = [{"key": "network", "value": "backend"}, {"key": "network-alias", "value": "me"}]
    made = body(network="USER", parameters=named)
    assert made["HostConfig"]["NetworkMode"] == "backend"
    assert made["NetworkingConfig"] == {"EndpointsConfig": {"backend": {"Aliases": ["me"]}}}
    with pytest.raises(BadParameter):
        body(network="USER")


def test_labels_of_ours_cannot_be_replaced_and_limits_can_be_lowered() -> None:
    made = body(
        parameters=[{"key": "label", "value": "a=b"}, {"key": "ulimit", "value": "nofile=5"}],
        place=Place({"gantry.run": "1"}, "/s", nofile=1000),
    )
    assert made["Labels"] == {"a": "b", "gantry.run": "1"}
    assert made["HostConfig"]["Ulimits"] == [{"Name": "nofile", "Soft": 5, "Hard": 5}]
    assert body(place=Place({}, "/s", nofile=1000))["HostConfig"]["Ulimits"][0]["Hard"] == 1000


def test_time_between_start_and_end_survives_a_clock_that_was_set_back() -> None:
    times = {"StartedAt": "2026-01-01T00:00:01.5Z", "FinishedAt": "2026-01-01T00:00:03.25Z"}
    assert ran_s(times) == 1.75
    assert ran_s({**times, "FinishedAt": "2025-01-01T00:00:00Z"}) == 0.0
    assert ran_s({}) == 0.0


@pytest.mark.parametrize(
    ("status", "words", "ours"),
    [
        (400, 'exec: "x": executable file not found in $PATH: unknown', False),
        (500, "error while mounting: not a directory: unknown", False),
        (404, "network nonet not found", False),
        (500, "driver failed programming: Bind for 0.0.0.0:1 failed: port is already allocated", True),
        (500, "mkdir /var/lib/docker/x: no space left on device", True),
        (500, "something that nobody has seen before", True),
    ],
)
def test_whose_fault_a_refused_start_is(status: int, words: str, ours: bool) -> None:
    """Catches a user's error that is tried for ever, and a full disk that fails a user's run."""
    failure = refused_start(EngineRefused(status, words), {"Error": "", "ExitCode": 0})
    assert failure.ours is ours
    assert failure.reason == (Reason.RUNTIME if ours else Reason.CREATE)
    assert words in failure.message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "unix:///var/run/docker.sock"),
        ("unix:///a/b.sock", "unix:///a/b.sock"),
        ("tcp://h:1", "tcp://h:1"),
        ("tcp://h", "tcp://h:2375"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    assert Address.parse(text).shown == shown


@pytest.mark.parametrize("text", ["ssh://h", "unix://", "nonsense", "tcp://"])
def test_addresses_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="DOCKER_HOST is"):
        Address.parse(text)


def test_a_start_that_the_engines_death_interrupted_counts_as_a_try() -> None:
    """Catches a run that is called the user's fault, or offered again as if nothing could have run."""
    for words in (f"task {'a' * 64}: already exists", "id already in use"):
        failure = refused_start(EngineRefused(500, words), {"ExitCode": 128})
        assert (failure.ours, failure.reason) == (False, Reason.RUNTIME)


@pytest.mark.parametrize("how", ["not found", "is ambiguous (2 matches found on name)"])
def test_a_fault_of_our_own_network_is_no_users(how: str) -> None:
    assert refused_start(EngineRefused(400, f"network gantry {how}"), {}).ours
    assert not refused_start(EngineRefused(404, "network other not found"), {}).ours
