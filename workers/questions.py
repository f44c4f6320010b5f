"""Answers of a node to what the API asks about its engine's truth (NodeRequest rows).

Must not import the agent: it gives the look-up as a function.
"""

from __future__ import annotations

from collections.abc import Callable

from django.utils import timezone

from workers.models import NodeRequest


def answer(request_ids: list[int], presence_of: Callable[[int], tuple[bool, str]]) -> None:
    """Answer open requests; ``presence_of`` compares one run with the engine and repairs what differs."""
    for request in NodeRequest.objects.filter(pk__in=request_ids, answered_at=None):
        request.answer = {str(run_id): presence_of(run_id) for run_id in request.payload.get("runs", [])}
        request.answered_at = timezone.now()
        request.save(update_fields=["answer", "answered_at"])
