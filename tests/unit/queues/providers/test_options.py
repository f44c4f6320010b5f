"""Options of policies: what cannot work is refused, by name, before anybody is asked."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from queues.providers import options
from tests.support.cluster import ROOT
from tests.support.waiting import limit
from workers.vocabulary.errors import InvalidInput

UUID = "7d2590ae-fb85-4080-9306-058b4c915e3f"
PLACEMENT: dict[str, Any] = {
    "auth_url": "https://keystone.example:5000/v3/",
    "username": "gantry",
    "user_domain": "Default",
    "project": "service",
    "project_domain": "Default",
    "secret": "hunter22",
}
KUBERNETES: dict[str, Any] = {"server": "https://cluster.example:6443/", "secret": "abc.def"}


def test_what_works() -> None:
    options.check("pools", {})
    given = options.placement({**PLACEMENT, "aggregates": {UUID.upper(): "rack 1"}, "region": None})
    assert (given.auth_url, given.aggregates) == ("https://keystone.example:5000/v3", {UUID: "rack 1"})
    cluster = options.kubernetes({**KUBERNETES, "tolerate": ["nvidia.com/gpu"]})
    assert (cluster.server, cluster.tolerate) == ("https://cluster.example:6443", ("nvidia.com/gpu",))


def test_no_secret_is_shown() -> None:
    assert "hunter22" not in repr(options.placement(PLACEMENT))
    assert "abc.def" not in repr(options.kubernetes(KUBERNETES))


@pytest.mark.parametrize(
    ("provider", "change", "field"),
    [
        *(("placement", {name: None}, name) for name in PLACEMENT),
        *(("placement", {name: ["x"]}, name) for name in PLACEMENT),
        ("placement", {"auth_url": "ftp://keystone.example"}, "auth_url"),
        ("placement", {"auth_url": "https://admin:pw@keystone.example"}, "auth_url"),
        ("placement", {"auth_url": "https://keystone.example?x=1"}, "auth_url"),
        ("placement", {"placement_url": "placement"}, "placement_url"),
        ("placement", {"username": "a\nb"}, "username"),
        ("placement", {"username": "a" * 256}, "username"),
        ("placement", {"regoin": "one"}, "regoin"),
        ("placement", {"aggregates": {"rack1": "rack 1"}}, "aggregates"),
        ("placement", {"aggregates": {UUID: ""}}, f"aggregates.{UUID}"),
        ("placement", {"aggregates": [UUID]}, "aggregates"),
        ("placement", {"ca": "no certificate"}, "ca"),
        *(("kubernetes", {name: None}, name) for name in KUBERNETES),
        ("kubernetes", {"secret": "a b"}, "secret"),
        ("kubernetes", {"secret": "a\r\nHost: x"}, "secret"),
        ("kubernetes", {"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "ca"),
        ("kubernetes", {"aggregate_label": 7}, "aggregate_label"),
        ("kubernetes", {"tolerate": "gpu"}, "tolerate"),
        ("pools", {"server": "x"}, "server"),
    ],
)
def test_what_cannot_work_is_named(provider: str, change: dict[str, Any], field: str) -> None:
    whole = {"placement": PLACEMENT, "kubernetes": KUBERNETES, "pools": {}}[provider]
    with pytest.raises(InvalidInput) as refused:
        options.check(provider, {**whole, **change})
    assert refused.value.field == f"options.{field}"
    for secret in ("hunter22", "abc.def"):
        assert secret not in str(refused.value)


def test_an_unknown_provider() -> None:
    with pytest.raises(InvalidInput) as refused:
        options.check("slurm", {})
    assert refused.value.field == "provider"


def test_checking_options_loads_no_client() -> None:
    """Catches 87 MiB of client in the web process."""
    code = "import sys; import queues.providers.options; assert 'kubernetes' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=limit(60))
