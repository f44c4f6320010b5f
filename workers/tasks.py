"""Celery's entry points, a few lines each. They carry ids only: everything else is in the process' memory.

Must not import anything but the agent and the deliverer of callbacks.
"""

from __future__ import annotations

from celery import shared_task

from workers.callbacks import deliverer
from workers.node import agent
from workers.vocabulary.leases import Lease


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


@shared_task(name="gantry.deliver", ignore_result=True)
def deliver(receiver_id: int, epoch: int) -> None:
    """Deliver to a receiver that this process' deliverer has leased; anything else is ignored."""
    if (mine := deliverer.current()) is not None:
        mine.deliver(Lease(receiver_id, 0, epoch))


@shared_task(name="gantry.callbacks_canary", ignore_result=True)
def callbacks_canary(nonce: str) -> None:
    """Proof that this deliverer consumes from the broker."""
    if (mine := deliverer.current()) is not None:
        mine.canary_arrived(nonce)
