"""What only Kubernetes has: pages and their end, certificates, extended resources, permissions.

The server is the tests' own (tests/support/kubernetes.py): no cluster can run here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from queues.providers import kubernetes
from queues.providers.base import Trouble
from tests.support.capacity import Kubernetes
from tests.support.kubernetes import TOKEN, ApiServer, certificate
from tests.support.waiting import limit

pytestmark = pytest.mark.django_db(transaction=True)
cluster = pytest.mark.parametrize("subject", ["kubernetes"], indirect=True)


@cluster
def test_every_resource_of_every_page(subject: Kubernetes) -> None:
    """Catches a page that is skipped or read twice, and a resource that nobody has listed."""
    server = subject.server
    for number in range(5):
        more: Any = {"ephemeral-storage": "5k", **({"nvidia.com/gpu": "2"} if number % 2 else {})}
        server.node(f"n{number}", cpu="3500m", memory="1Gi", pods="10", **more)
        for turn in range(3):
            server.pod(f"p{number}-{turn}", f"n{number}", cpu="250m", memory="1Mi")
    server.pod("done", "n0", phase="Succeeded", cpu="3")
    server.pod("waiting", None, phase="Pending", cpu="3")
    subject.policy(aggregate_label=None)
    assert subject.ask(), subject.trouble()
    found = subject.seen()["nodes"]
    assert sorted(found) == [f"n{number}" for number in range(5)]
    assert found["n1"] == {
        "cpu": (3.5, 0.75),
        "memory": (2**30, 3 * 2**20),
        "pods": (10, 3),
        "ephemeral-storage": (5000, 0),
        "nvidia.com/gpu": (2, 0),
    }
    assert [url.partition("?")[0] for url in server.seen].count("/api/v1/nodes") == 3
    assert all("resourceVersion" not in url for url in server.seen), "no old answer from a cache is wanted"


@cluster
def test_pages_that_expire_are_read_again(subject: Kubernetes) -> None:
    """Catches half a cluster that is taken for the whole one."""
    for number in range(5):
        subject.host("one", f"n{number}", 4)
    subject.policy()
    subject.server.expiring = 2
    assert subject.ask(), subject.trouble()
    assert len(subject.cpus()["one"]) == 5
    subject.server.expiring = 10**6
    assert not subject.ask()
    assert subject.trouble() == "Kubernetes: its list of nodes expires while it is read (410)"


@cluster
@pytest.mark.parametrize("what", ["nodes", "pods"])
def test_what_the_token_may_not_list_is_named(subject: Kubernetes, what: str) -> None:
    subject.host("one", "a", 4)
    subject.server.allowed.discard(what)
    subject.policy()
    assert not subject.ask()
    assert subject.trouble().startswith(
        f"Kubernetes: the token's account may not list {what} of the whole cluster (403): {what} is forbidden"
    )


@cluster
def test_nodes_that_take_no_pods_are_left_out(subject: Kubernetes) -> None:
    subject.host("one", "a", 4)
    subject.server.node("cordoned", labels={"zone": "one"}, unschedulable=True, cpu="4", pods="9")
    subject.server.node("lost", labels={"zone": "one"}, ready="Unknown", cpu="4", pods="9")
    taints = [{"key": "gpu", "effect": "NoSchedule"}]
    subject.server.node("tainted", labels={"zone": "two"}, taints=taints, cpu="4", pods="9")
    subject.policy()
    assert subject.ask()
    assert subject.cpus() == {"one": {"a": (4, 0)}}
    subject.policy(tolerate=["gpu"])
    assert subject.ask()
    assert subject.cpus() == {"one": {"a": (4, 0)}, "two": {"tainted": (4, 0)}}


def test_its_own_authority_vouches_for_a_cluster(settings: Any, tmp_path: Path) -> None:
    """Catches a certificate that is not checked, and a cluster that only public authorities could name."""
    settings.GANTRY_QUEUE_ALLOW_NETWORKS = ["127.0.0.1/32"]
    settings.GANTRY_QUEUE_PROVIDER_S = limit(60.0)
    context, pem = certificate(tmp_path)
    with ApiServer(context) as server:
        server.node("a", cpu="4", pods="10")
        options = {"server": f"https://127.0.0.1:{server.port}", "secret": TOKEN}
        ((found,),) = (each.hosts for each in kubernetes.make({**options, "ca": pem}).capacity())
        assert (found.name, found.total["cpu"]) == ("a", 4000)
        with pytest.raises(Trouble, match="its certificate is not valid"):
            kubernetes.make(options).capacity()
