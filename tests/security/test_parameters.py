"""What a tenant may write into a container's parameters opens nothing that has a policy of its own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runtimes.container.config import Place, create_body
from workers.runtimes.engine.image import Image
from workers.vocabulary import docker_options
from workers.vocabulary.docker_options import BadParameter
from workers.vocabulary.specs import ContainerSpec

_KEYS = sorted({*docker_options._KNOWN, *docker_options._SHORT, *docker_options._ELSEWHERE})
#: What an attacker wants to have passed on.
_WANTED = (
    *("host", "none", "bridge", "default", "container:abc", "container:", "ns:/proc/1/ns/net", "service:x"),
    *("gantry", "ingress", "e3f0c2b1a4d5", "f", "0" * 64, "all", "ALL", "CAP_SYS_ADMIN", "sys_ptrace"),
    *("/dev/sda", "/dev/mem:/dev/mem:rwm", "/dev/fuse", "/dev/../dev/sda", "/dev/null/../sda", "/", "-1"),
    *(
        "systempaths=unconfined",
        "no-new-privileges",
        "true",
        "kernel.core_pattern=|/x",
        "net.core.somaxconn=1",
    ),
    *("shareable", "gantry.run=1", "A=b", "64m", "backend", "-1000", "5", "/run", "nofile=5"),
)
_NOISE = st.sampled_from(
    [
        "",
        " ",
        "\t",
        "\n",
        "\u00a0",
        "\u200b",
        "\ufeff",
        "\0",
        "'",
        '"',
        "/",
        ",",
        "[",
        "]",
        "\u0131",
        "\u017f",
    ]
)


@st.composite
def disguised(draw: Any) -> str:
    """A wanted value with blanks, quotes, lists, other cases and Unicode around or inside."""
    text = draw(st.sampled_from(_WANTED) | st.text(max_size=12))
    text = draw(st.sampled_from([str, str.upper, str.title, str.casefold]))(text)
    at = draw(st.integers(0, len(text)))
    return str(draw(_NOISE) + text[:at] + draw(_NOISE) + text[at:] + draw(_NOISE))


def _permitted(made: dict[str, Any]) -> None:
    """What may be in a body that no other policy has opened, as the engine reads it."""
    host = made["HostConfig"]
    assert not host.get("Privileged")
    network = host["NetworkMode"]
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", network)
    assert network.casefold() not in ("host", "none", "bridge", "default", "nat", "ingress", "gantry")
    assert not re.fullmatch(r"[0-9a-f]+", network.casefold()), "the engine takes it for an id's beginning"
    for name in host.get("CapAdd", ()):
        assert name in docker_options._CAPABILITIES
    for item in host.get("Devices", ()):
        assert item["PathOnHost"].startswith("/dev/")
        assert not re.search(r"\.\.|//|/dev/(sd|mem|kmem|port|vd|xvd|nvme|mapper|loop)", item["PathOnHost"])
    assert host.get("IpcMode") in (None, "private", "none", "shareable")
    for name in host.get("Sysctls", {}):
        assert name.split(".")[0] in ("net", "fs", "kernel")
        assert not name.startswith("kernel.core")
    assert 0 <= host.get("OomScoreAdj", 0) <= 1000
    assert 1 <= host["PidsLimit"] <= 4096
    assert not {"PidMode", "UTSMode", "UsernsMode", "Binds", "VolumesFrom", "CgroupParent"} & set(host)
    assert [item["Type"] for item in host["Mounts"]] == ["bind"]
    assert made["Labels"]["gantry.run"] == "7"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(_KEYS),
            st.sampled_from(["", " ", "-", "--", "\t"]),
            st.sampled_from([str, str.upper, str.title]),
            disguised(),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_no_option_opens_what_another_policy_closes(
    asked: list[tuple[str, str, Any, str]],
) -> None:
    parameters = [{"key": before + case(key), "value": value} for key, before, case, value in asked]
    spec = ContainerSpec(
        image="x", network="USER", parameters=[{"key": "network", "value": "backend"}, *parameters]
    )
    try:
        made = create_body(spec, Image("sha256:abc", "d"), Place({"gantry.run": "7"}, "/scratch"))
    except BadParameter:
        return
    _permitted(made)


@pytest.mark.parametrize(
    "value",
    [
        " host",
        "Host",
        "host ",
        "\thost",
        " container:NAME",
        "container:NAME",
        "default",
        "0123abcd",
        "a",
        "a" * 64,
    ],
)
def test_networks_that_are_not_the_tenants(value: str) -> None:
    with pytest.raises(BadParameter, match="user-defined network"):
        docker_options.parse([{"key": "network", "value": value}])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cap-add", "ALL"),
        ("cap-add", " cap_sys_admin"),
        ("device", "/dev/sda"),
        ("device", "/dev/null/../sda"),
        ("sysctl", "kernel.core_pattern=|/x"),
        ("oom-score-adj", "-1000"),
        ("pids-limit", "-1"),
        ("label", " Gantry.run=1"),
        ("security-opt", "systempaths=unconfined"),
    ],
)
def test_what_would_be_privileges(key: str, value: str) -> None:
    with pytest.raises(BadParameter, match=key):
        docker_options.parse([{"key": key, "value": value}])


def test_a_blank_that_is_meant_stays() -> None:
    assert docker_options.parse([{"key": "env", "value": "PS1=> "}]).env == {"PS1": "> "}
    assert docker_options.parse([{"key": "network", "value": " backend "}]).network == "backend"
