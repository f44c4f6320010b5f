"""Output that retention has deleted, by retention itself."""

from __future__ import annotations

from datetime import timedelta

from django.db.models.functions import Now

from workers.models import Run
from workers.upkeep import retention


def let_output_go(*run_ids: int, days: int = 20, rounds: int = 500) -> None:
    """Date ended runs back by so many days, then delete what is older than it is kept.

    ``rounds``: runs looked at in one round.
    """
    then = Now() - timedelta(days=days)
    assert Run.objects.filter(pk__in=run_ids).update(created_at=then, finished_at=then) == len(run_ids)
    for _ in retention.prune_all(rounds):
        pass
