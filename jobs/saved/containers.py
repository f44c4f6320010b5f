"""The running containers of a job's service, asked of the nodes: for a start without Target (ours).

The web process knows no engine: each node that can execute is asked (``workers.asking``), all at once, with a
bounded wait. One that is silent or late gets a target of its own that says so. Must not import views.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import F
from django.db.models.functions import Now

from jobs.saved.wire import JobFacts
from workers.asking import CONTAINERS, WAIT_S, ask
from workers.models import Node
from workers.tenants import policy
from workers.vocabulary.errors import Conflict
from workers.vocabulary.specs import ExecSpec


@dataclass(frozen=True)
class Planned:
    """A target to be: ``error`` is why it cannot run, known before anything is started."""

    container: str
    node: str
    error: str = ""
    #: The run of the target that this one repeats.
    retry_of: int | None = None


def find(tenant_id: int, job: JobFacts, only: Collection[str] = (), wait_s: float = WAIT_S) -> list[Planned]:
    """Where to start a job of which no container was named; ``only``: on these nodes (as in NodeId).

    Must not be called in a transaction. Conflict when there is no such container anywhere.
    """
    what = f"service {job.service_name}" if job.service_name else f"label app={job.app_name}"
    nodes = [node for node in _nodes() if not only or node.swarm_node_id in only or node.name in only]
    if not nodes:
        raise Conflict(
            "no node can execute in containers now: name the containers in Target, or start a worker"
        )
    payload = {
        "service": job.service_name,
        "app": "" if job.service_name else job.app_name,
        "selectors": policy.exec_targets(tenant_id),
    }
    heard = [node for node in nodes if not _silent(node)]
    answers = ask(CONTAINERS, {node.pk: payload for node in heard}, wait_s)
    planned: list[Planned] = []
    seen: set[str] = set()
    for node in nodes:
        node_id = node.swarm_node_id or node.name
        told: dict[str, Any] = answers.get(node.pk) or {}
        if why := _untold(node, told, wait_s):
            planned.append(Planned("", node_id, f"{why}: whether {what} runs there is not known"))
        for container in told.get("containers", ()):
            # Two workers may stand for one engine.
            if container["id"] not in seen:
                seen.add(container["id"])
                planned.append(Planned(str(container["id"]), node_id))
    if not planned:
        asked = ", ".join(sorted(node.name for node in nodes))
        raise Conflict(f"no running container of {what} was found (asked: {asked})")
    return planned


def _nodes() -> list[Any]:
    nodes = Node.objects.filter(mode=Node.Mode.READY, runtimes__contains=[ExecSpec.KIND])
    return list(nodes.annotate(unheard=Now() - F("heartbeat_at")).order_by("name"))


def _silent(node: Any) -> bool:
    return bool(node.detached or node.unheard.total_seconds() > settings.GANTRY_LEASE_S)


def _untold(node: Any, told: dict[str, Any], wait_s: float) -> str:
    """Why a node has not told its containers; empty when it has."""
    if _silent(node):
        return f"node {node.name} has been silent for {node.unheard.total_seconds():.0f} s"
    if told.get("error"):
        return f"node {node.name} cannot tell: {told['error']}"
    return "" if "containers" in told else f"node {node.name} did not answer within {wait_s:g} s"
