"""Parameters of a container: docker run options, each read or refused by name."""

from __future__ import annotations

import pytest

from workers.vocabulary.docker_options import BadParameter, parse


def one(key: str, value: str = "") -> object:
    return parse([{"key": key, "value": value}])


def test_well_known_ones_reach_their_place() -> None:
    """Catches an option that lands in the wrong part of the engine's request."""
    options = parse(
        [
            {"key": "env", "value": "A=b=c"},
            {"key": "label", "value": "team=x"},
            {"key": "hostname", "value": "box"},
            {"key": "--dns", "value": "10.0.0.1"},
            {"key": "add-host", "value": "db:10.0.0.2"},
            {"key": "cap-add", "value": "CHOWN"},
            {"key": "ulimit", "value": "nofile=10:20"},
            {"key": "shm-size", "value": "64m"},
            {"key": "tmpfs", "value": "/run:size=1m"},
            {"key": "u", "value": "1000:1000"},
            {"key": "workdir", "value": "/srv"},
            {"key": "entrypoint", "value": "sh -c 'a b'"},
            {"key": "memory-swap", "value": "-1"},
            {"key": "net", "value": "backend"},
            {"key": "read-only", "value": "true"},
        ]
    )
    assert options.env == {"A": "b=c"}
    assert options.labels == {"team": "x"}
    assert options.network == "backend"
    assert options.config == {
        "Hostname": "box",
        "User": "1000:1000",
        "WorkingDir": "/srv",
        "Entrypoint": ["sh", "-c", "a b"],
    }
    assert options.host == {
        "Dns": ["10.0.0.1"],
        "ExtraHosts": ["db:10.0.0.2"],
        "CapAdd": ["CHOWN"],
        "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
        "ShmSize": 64 * 1024**2,
        "Tmpfs": {"/run": "size=1m"},
        "MemorySwap": -1,
        "ReadonlyRootfs": True,
    }


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("frob", "x", "parameter 'frob' is not supported: known are add-host"),
        ("volume", "/a:/b", "parameter 'volume' is not supported: use container.volumes"),
        ("privileged", "true", "use container.docker.privileged"),
        ("name", "x", "the container's name is derived from the task"),
        ("log-driver", "none", "the output is kept by this service"),
        ("pid", "host", "each container has its own processes"),
        ("ipc", "host", "use private, none or shareable"),
        ("network", "host", "it names a user-defined network"),
        ("network", "container:abc", "it names a user-defined network"),
        ("label", "gantry.run=1", "does not begin with gantry."),
        ("ulimit", "nofile", "write NAME=VALUE"),
        ("ulimit", "nofile=many", "write a whole number"),
        ("shm-size", "much", "write a size such as 64m"),
        ("tmpfs", "run", "write an absolute path"),
        ("read-only", "perhaps", "write true or false"),
        ("user", " ", "it is blank"),
        ("security-opt", "systempaths=unconfined", "use apparmor="),
    ],
)
def test_refusals_name_the_parameter_and_the_fix(key: str, value: str, words: str) -> None:
    """Catches an option that is dropped in silence, and one that goes round a policy of its own."""
    with pytest.raises(BadParameter) as refused:
        one(key, value)
    assert words in str(refused.value)
    assert repr(key) in str(refused.value)
