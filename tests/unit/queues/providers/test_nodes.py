"""What nodes have and pods take, as Kubernetes' scheduler counts it."""

from __future__ import annotations

from typing import Any

import pytest

from queues.providers import nodes
from tests.support.kubernetes import node

CPU = {"cpu": "4", "memory": "8Gi", "pods": "110", "nvidia.com/gpu": "2"}


def container(cpu: str, name: str = "c", **more: Any) -> dict[str, Any]:
    return {"name": name, "resources": {"requests": {"cpu": cpu}}, **more}


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {"nodeName": "n", "containers": list(containers), **spec}, "status": {"phase": "Running"}}


def cpu_of(item: dict[str, Any]) -> int:
    return nodes.asked_for(item)["cpu"]


def test_what_a_node_can_give_is_rounded_down() -> None:
    """Catches an amount that is a little more than there is, and a resource that is dropped."""
    found = nodes.node_of(node("n", {**CPU, "memory": "1234567890123m", "x" * 65: "1"}))
    assert found is not None
    assert found == (
        "nodes",
        "n",
        {"cpu": 4000, "memory": 1234567890123, "pods": 110_000, "nvidia.com/gpu": 2000},
    )


@pytest.mark.parametrize(
    "state",
    [
        {"ready": "False"},
        {"ready": "Unknown"},
        {"unschedulable": True},
        {"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]},
        {"taints": [{"key": "gpu", "effect": "PreferNoSchedule"}, {"key": "broken", "effect": "NoExecute"}]},
    ],
    ids=str,
)
def test_a_node_that_takes_no_pods_is_not_there(state: dict[str, Any]) -> None:
    assert nodes.node_of(node("n", CPU, **state)) is None


def test_taints_that_are_tolerated_or_only_a_preference() -> None:
    tainted = node("n", CPU, taints=[{"key": "gpu", "effect": "NoSchedule"}])
    assert nodes.node_of(tainted) is None
    assert nodes.node_of(tainted, tolerate=frozenset({"gpu"})) is not None
    assert nodes.node_of(node("n", CPU, taints=[{"key": "old", "effect": "PreferNoSchedule"}])) is not None


def test_the_label_names_the_aggregate() -> None:
    labelled = node("n", CPU, labels={"zone": "a"})
    places = [nodes.node_of(each, label="zone") for each in (labelled, node("m", CPU))]
    assert [place and place[0] for place in places] == ["a", "none"]


def test_containers_count_together_and_up() -> None:
    assert cpu_of(pod(container("500m"), container("0.5001"))) == 1001


def test_the_largest_initial_step_counts_when_it_is_more() -> None:
    assert cpu_of(pod(container("1"), initContainers=[container("3"), container("2")])) == 3000
    assert cpu_of(pod(container("4"), initContainers=[container("3")])) == 4000


def test_sidecars_run_beside_what_follows_them() -> None:
    """Catches a sidecar that is taken for a step: 1 beside the step of 3, and 1 beside the containers' 2."""
    sidecar = container("1", restartPolicy="Always")
    assert cpu_of(pod(container("2"), initContainers=[sidecar, container("3")])) == 4000
    assert cpu_of(pod(container("2"), initContainers=[container("3"), sidecar])) == 3000
    assert cpu_of(pod(container("5"), initContainers=[sidecar])) == 6000


def test_overhead_and_what_a_pod_asks_for_as_a_whole() -> None:
    assert cpu_of(pod(container("1"), overhead={"cpu": "250m"})) == 1250
    whole = pod(container("1"), resources={"requests": {"cpu": "3"}}, overhead={"cpu": "1"})
    assert cpu_of(whole) == 4000


def test_a_pod_that_is_being_resized_counts_with_the_larger() -> None:
    item = pod(container("1"))
    item["status"]["containerStatuses"] = [{"name": "c", "allocatedResources": {"cpu": "3"}}]
    assert cpu_of(item) == 3000


def test_pods_that_are_nowhere_or_have_ended_take_nothing() -> None:
    waiting = {"spec": {"containers": [container("1")]}, "status": {"phase": "Pending"}}
    assert nodes.use_of(waiting) is None
    for phase in ("Succeeded", "Failed"):
        assert nodes.use_of({**pod(container("1")), "status": {"phase": phase}}) is None
    assert nodes.use_of(pod(container("1"))) == ("n", {"cpu": 1000, "pods": 1000})


def test_what_is_used_is_told_of_what_a_node_has() -> None:
    host = nodes.host_of("n", {"cpu": 4000, "pods": 2000}, {"cpu": 100, "pods": 2000, "elsewhere": 1})
    assert host.outside == {"cpu": 100, "pods": 2000}


@pytest.mark.parametrize("quantity", ["-1", "many", "", "1e99", [], True, {"cpu": 1}])
def test_what_is_no_quantity(quantity: Any) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        nodes.node_of(node("n", {"cpu": quantity}))
