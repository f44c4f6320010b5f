"""Answers of a node to what the API asks about its engine's truth: NodeRequest rows.

``workers.asking`` asks. Must not import the agent or runtimes: they give the look-ups as functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.utils import timezone

from workers.models import NodeRequest

#: From a question's payload to its answer.
Lookup = Callable[[dict[str, Any]], dict[str, Any]]


def answer(
    request_ids: list[int],
    presence_of: Callable[[int], tuple[bool, str]],
    lookups: Mapping[str, Lookup] | None = None,
) -> None:
    """Answer open requests. ``presence_of`` compares one run with the engine and repairs what differs.

    ``lookups`` has the kinds of question that this node's runtimes answer. One that nobody here understands
    is answered too, with {"error"}: whoever asks need not wait.
    """
    for request in NodeRequest.objects.filter(pk__in=request_ids, answered_at=None):
        if request.kind == "reconcile":
            request.answer = {str(run_id): presence_of(run_id) for run_id in request.payload.get("runs", [])}
        elif (lookup := (lookups or {}).get(request.kind)) is not None:
            request.answer = lookup(request.payload)
        else:
            request.answer = {"error": f"no runtime of this node answers the question {request.kind!r}"}
        request.answered_at = timezone.now()
        request.save(update_fields=["answer", "answered_at"])
