"""Questions of the API to nodes: a request row and a ring, a bounded wait, an honest answer when it is late.

The web process knows no engine. Call it outside of a transaction: a node cannot see what is not committed.
Must not import services, families or the worker's side; ``workers.node.questions`` is the other end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from workers.logs.aside import step_aside
from workers.messages import doorbell
from workers.models import NodeRequest

#: How long a client's request may wait for nodes, in seconds.
WAIT_S: Final = 5.0
_LOOK_S: Final = 0.05

#: Which running containers there are. Payload: {"service": a service's name or "", "app": the value of the
#: label ``app`` that is meant when no service is named, "selectors": as in ``ExecSpec``}. Answer:
#: {"containers": [{"id": full id, "name"}]} ordered by name, or {"error": why it cannot be told}.
CONTAINERS: Final = "containers"


def ask(kind: str, payloads: Mapping[int, dict[str, Any]], wait_s: float = WAIT_S) -> dict[int, Any]:
    """Ask nodes (node id -> payload) and wait ``wait_s`` at most; a node without an answer is left out."""
    waiting = {
        NodeRequest.objects.create(node_id=node_id, kind=kind, payload=payload).pk: node_id
        for node_id, payload in payloads.items()
    }
    answers: dict[int, Any] = {}
    if waiting:
        doorbell.ring()
        step_aside()  # a node may be gone
    deadline = time.monotonic() + wait_s
    while waiting:
        done = NodeRequest.objects.filter(pk__in=list(waiting), answered_at__isnull=False)
        for request_id, answer in done.values_list("pk", "answer"):
            answers[waiting.pop(request_id)] = answer
        if not waiting or time.monotonic() >= deadline:
            break
        time.sleep(_LOOK_S)
    return answers
