"""What the database knows of nodes and leases at this moment, and its cure for a client that stands still."""

from __future__ import annotations

from datetime import datetime

from django.db import connection

from tests.support.cluster import Process
from tests.support.engine import run, states, wait_started
from tests.support.waiting import wait_until
from workers.models import Node, RunEvent


def now() -> datetime:
    """The database's time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        found: datetime = cursor.fetchone()[0]
        return found


def wait_beat(name: str, since: datetime | None = None, timeout_s: float = 60.0) -> None:
    """Wait for a heartbeat of a node that is younger than ``since`` (now)."""
    moment = since or now()
    wait_until(
        lambda: Node.objects.filter(name=name, heartbeat_at__gt=moment).exists(),
        timeout_s,
        why=f"{name} beats after {moment}",
        see=lambda: f"beats {list(Node.objects.values_list('name', 'heartbeat_at', 'detached'))} at {now()}",
    )


def leased(run_id: int) -> bool:
    """Does the run's lease stand?"""
    with connection.cursor() as cursor:
        cursor.execute("SELECT lease_until > now() FROM workers_run WHERE id = %s", [run_id])
        return bool(cursor.fetchone()[0])


def wait_retried(run_id: int) -> None:
    """Wait until the second attempt of a run has started."""
    wait_until(
        lambda: run(run_id).attempt == 2, 90, why=f"run {run_id} is retried", see=lambda: states(run_id)
    )
    wait_started(run_id)


def wait_let_go(worker: Process, how_many: int) -> None:
    """Wait until a worker has noticed of so many runs that they are not its own any more."""
    wait_until(
        lambda: worker.text().count("run.left") == how_many,
        why=f"{worker.name} lets go of {how_many} runs",
        see=worker.tail,
    )


def recorded_by(run_id: int) -> list[tuple[int, str]]:
    """(attempt, who) of every transition of a run, in order."""
    return list(RunEvent.objects.filter(run_id=run_id).order_by("id").values_list("attempt", "by"))


def end_open_transactions() -> None:
    """What the server does after a minute (idle_in_transaction_session_timeout), long before a node is lost.

    A worker that stands still within a transaction keeps its locks until then; tests have shorter timers.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE application_name = 'gantry-worker' AND state LIKE 'idle in transaction%'"""
        )
