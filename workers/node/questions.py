"""Answers of a node to what the API asks about its engine's truth: NodeRequest rows.

``workers.asking`` asks. Must not import the agent or runtimes: they give the look-ups as functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from workers.models import NodeRequest

log = structlog.get_logger(__name__)

#: From a question's payload to its answer.
Lookup = Callable[[dict[str, Any]], dict[str, Any]]


def answer(
    request_ids: list[int],
    presence_of: Callable[[int], tuple[bool, str]],
    lookups: Mapping[str, Lookup] | None = None,
) -> None:
    """Answer open requests. ``presence_of`` compares one run with the engine and repairs what differs.

    ``lookups`` has the kinds of question that this node's runtimes answer. One that nobody here understands
    is answered too, with {"error"}: whoever asks need not wait. So is one that cannot be answered: else it
    would come again with every look, and those behind it would have no answer. Raises DatabaseError.
    """
    for request in NodeRequest.objects.filter(pk__in=request_ids, answered_at=None):
        try:
            request.answer = _answered(request, presence_of, lookups or {})
        except (DatabaseError, InterfaceError):
            raise
        except Exception as error:
            log.exception("question.failed", question=request.pk, kind=request.kind)
            request.answer = {"error": f"this node cannot answer: {error!r}"}
        request.answered_at = timezone.now()
        request.save(update_fields=["answer", "answered_at"])


def _answered(
    request: NodeRequest, presence_of: Callable[[int], tuple[bool, str]], lookups: Mapping[str, Lookup]
) -> dict[str, Any]:
    if request.kind == "reconcile":
        return {str(run_id): _presence(run_id, presence_of) for run_id in request.payload.get("runs", [])}
    if (lookup := lookups.get(request.kind)) is not None:
        return lookup(request.payload)
    return {"error": f"no runtime of this node answers the question {request.kind!r}"}


def _presence(run_id: int, presence_of: Callable[[int], tuple[bool, str]]) -> tuple[bool, str]:
    """Of one run: what is wrong with it is nothing that the others' answers wait for."""
    try:
        return presence_of(run_id)
    except (DatabaseError, InterfaceError):
        raise
    except Exception as error:
        log.exception("question.failed", run=run_id, kind="reconcile")
        return False, f"the node cannot tell: {error!r}"
