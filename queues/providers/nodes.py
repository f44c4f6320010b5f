"""What nodes of Kubernetes have and what pods on them ask for: pure, on the JSON of its API.

Source: https://kubernetes.io/docs/reference/kubernetes-api/ , Node and Pod. What a pod asks for as the
scheduler counts it (k8s.io/component-helpers/resource).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, Final

from queues import needs
from queues.pools import HostAmounts
from workers.vocabulary.errors import InvalidInput

#: The aggregate of all nodes, and of those without the label that names it.
ALL: Final = "nodes"
ELSEWHERE: Final = "none"
_PODS: Final = "pods"
_ENDED: Final = frozenset({"Succeeded", "Failed"})
_KEEPS_AWAY: Final = frozenset({"NoSchedule", "NoExecute"})
_LONGEST_NAME: Final = 64

Amounts = dict[str, int]


def node_of(
    node: Mapping[str, Any], *, label: str = "", tolerate: frozenset[str] = frozenset()
) -> tuple[str, str, Amounts] | None:
    """(Aggregate, name, what pods can have of it) of a node that is ready and takes pods.

    ``label`` names the aggregate by its value; ``tolerate``: taints that keep no pod of this type away.
    LookupError, TypeError, AttributeError and ValueError say that this is not what the API documents; for
    pods, too.
    """
    if not _takes_pods(node, tolerate):
        return None
    labels = node["metadata"].get("labels") or {}
    aggregate = (labels.get(label) or ELSEWHERE) if label else ALL
    return aggregate, node["metadata"]["name"], _amounts(node["status"]["allocatable"], up=False)


def use_of(pod: Mapping[str, Any]) -> tuple[str, Amounts] | None:
    """(Node, what it takes there) of a pod that has been placed and has not ended."""
    node = pod["spec"].get("nodeName")
    if not node or (pod.get("status") or {}).get("phase") in _ENDED:
        return None
    return node, asked_for(pod)


def host_of(name: str, total: Amounts, used: Mapping[str, int]) -> HostAmounts:
    """A node with what the pods on it take."""
    return HostAmounts(name, total, {resource: used.get(resource, 0) for resource in total})


def asked_for(pod: Mapping[str, Any]) -> Amounts:
    """What a pod takes of its node: its containers together, or its largest initial step; and one pod."""
    spec = pod["spec"]
    given = _given(pod.get("status") or {})
    running: Counter[str] = Counter()
    for container in spec["containers"]:
        running.update(_requests(container, given))
    most: Counter[str] = Counter()
    beside: Counter[str] = Counter()
    for container in spec.get("initContainers") or []:
        wanted = Counter(_requests(container, given))
        if container.get("restartPolicy") == "Always":  # it goes on running beside the others
            beside.update(wanted)
            wanted = Counter()
        most |= beside + wanted
    # Where the pod as a whole asks, that counts for the resources it names.
    whole = _amounts((spec.get("resources") or {}).get("requests"))
    total = Counter({**((running + beside) | most), **whole})
    total.update(_amounts(spec.get("overhead")))
    return {**total, _PODS: needs.UNIT}


def _takes_pods(node: Mapping[str, Any], tolerate: frozenset[str]) -> bool:
    spec = node.get("spec") or {}
    ready = any(
        each["type"] == "Ready" and each["status"] == "True"
        for each in node["status"].get("conditions") or []
    )
    taints = [
        each["key"]
        for each in spec.get("taints") or []
        if each["effect"] in _KEEPS_AWAY and each["key"] not in tolerate
    ]
    return ready and not spec.get("unschedulable") and not taints


def _given(status: Mapping[str, Any]) -> dict[str, list[Amounts]]:
    """By container: what it was given, which differs from what it asks for while it is being resized."""
    found: dict[str, list[Amounts]] = defaultdict(list)
    for each in [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]:
        found[each["name"]].append(_amounts(each.get("allocatedResources")))
        found[each["name"]].append(_amounts((each.get("resources") or {}).get("requests")))
    return found


def _requests(container: Mapping[str, Any], given: Mapping[str, list[Amounts]]) -> Amounts:
    wanted = Counter(_amounts((container.get("resources") or {}).get("requests")))
    for amounts in given.get(container["name"], []):
        wanted |= Counter(amounts)
    return dict(wanted)


def _amounts(quantities: Mapping[str, Any] | None, *, up: bool = True) -> Amounts:
    """Quantities in thousandths. What nobody can ask for, because its name is too long, is left out."""
    try:
        return {
            name: needs.amount(value, name, up=up)
            for name, value in (quantities or {}).items()
            if len(name) <= _LONGEST_NAME
        }
    except InvalidInput:
        raise ValueError("no quantity") from None
