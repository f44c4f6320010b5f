"""Celery's entry points, a few lines each. They carry ids only: everything else is in the agent's memory.

Must not import anything but the agent.
"""

from __future__ import annotations

from celery import shared_task

from workers import agent
from workers.leases import Lease


@shared_task(name="gantry.execute", ignore_result=True)
def execute(run_id: int, attempt: int, epoch: int) -> None:
    """Execute a run that this worker's agent has claimed; anything else is ignored."""
    if (mine := agent.current()) is not None:
        mine.execute(Lease(run_id, attempt, epoch))


@shared_task(name="gantry.canary", ignore_result=True)
def canary(nonce: str) -> None:
    """Proof that this worker consumes from the broker."""
    if (mine := agent.current()) is not None:
        mine.canary_arrived(nonce)
