"""Faults of the session's Redis and Postgres, each repaired when its block ends.

The servers are the real ones of ``tests.support.session``: killed, frozen, restarted, flushed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from django.db import Error as DatabaseError
from django.db import connection
from kombu.exceptions import OperationalError

from config.celery import app
from tests.support.cluster import freeze
from tests.support.session import POSTGRES, REDIS
from tests.support.waiting import wait_until
from workers.models import Node


@contextlib.contextmanager
def redis_silent() -> Iterator[None]:
    """Redis accepts connections and never answers: the fault that makes clients hang."""
    pid = REDIS.pid
    assert pid is not None
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def redis_down() -> Iterator[None]:
    """Redis is killed with everything it held, and comes back empty at the end of the block."""
    REDIS.kill()
    try:
        yield
    finally:
        REDIS.start()


def restart_redis(down_s: float = 0.0) -> None:
    """Kill Redis; what it held is gone (no AOF). Start it again after ``down_s`` seconds."""
    with redis_down():
        time.sleep(down_s)  # pace: how long the fault lasts


def flush_redis() -> None:
    """Throw away every queue and subscription's backlog at once."""
    with contextlib.closing(REDIS.client(60.0)) as client:
        client.flushall()


@contextlib.contextmanager
def postgres_down() -> Iterator[None]:
    """Postgres stops without finishing anything (``immediate``) and recovers at the end of the block."""
    connection.close()
    POSTGRES.stop("immediate")
    try:
        yield
    finally:
        POSTGRES.start()
        connection.close()


def terminate_connections() -> int:
    """End every connection to the test database but the caller's own; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = current_user"""
        )
        return int(cursor.fetchone()[0])


def patiently(what: Any) -> Any:
    """A condition for ``wait_until`` that counts a database error as "not yet"."""

    def ask() -> Any:
        try:
            return what()
        except DatabaseError:
            connection.close()
            return None

    return ask


def executed_by_celery(node: str = "n1") -> int | None:
    """How many execute messages this node's Celery has taken so far, by its own count; None: no answer."""
    try:
        with app.connection_for_write() as fresh:
            asked = app.control.inspect(destination=[f"gantry@{node}"], timeout=10.0, connection=fresh)
            answer = asked.stats()
    except (redis.RedisError, OperationalError, OSError):
        return None
    if not answer:
        return None
    return int(answer[f"gantry@{node}"]["total"].get("gantry.execute", 0))


def wait_broker_used(tenant_id: int, node: str = "n1", timeout_s: float = 90.0) -> None:
    """Submit short runs until Celery has consumed one of them: "process up" and ping would not prove it."""
    from tests.support.engine import submit, wait_final

    seen: list[int] = []

    def consumed() -> bool:
        wait_final(submit(tenant_id, "true"))
        count = executed_by_celery(node)
        if count is not None:
            seen.append(count)
        return len(seen) > 1 and seen[-1] > seen[0]

    wait_until(consumed, timeout_s, 0.3, f"node {node} takes runs through the broker again", lambda: seen)


def wait_broker_trusted(node: str = "n1", timeout_s: float = 90.0) -> None:
    """Wait until a message made the round trip to this node after this call."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (since,) = cursor.fetchone()
    wait_until(
        lambda: Node.objects.filter(name=node, broker_ok_at__gt=since).exists(),
        timeout_s,
        why=f"node {node} hears the broker after {since}",
        see=lambda: list(Node.objects.values_list("name", "broker_ok_at", "heartbeat_at")),
    )


@contextlib.contextmanager
def postgres_silent() -> Iterator[None]:
    """Postgres keeps its connections, takes new ones and never answers: a frozen machine."""
    connection.close()
    postmaster = POSTGRES.pid
    assert postmaster is not None
    freeze(postmaster)  # first: it makes no more of them
    frozen = [int(pid) for pid in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()]
    for pid in frozen:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            freeze(pid)
    try:
        yield
    finally:
        for pid in (*frozen, postmaster):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        connection.close()
