"""A worker's own heartbeats never make its database look older than it is."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest
from django.db import connection

from tests.support.waiting import limit, wait_until
from workers.node import registration
from workers.node.registration import Capacity, Registration

pytestmark = pytest.mark.django_db(transaction=True)


def beat_until(held: Registration, over: threading.Event) -> None:
    try:
        while not over.is_set():
            registration.heartbeat(held, {"process": ""}, broker_ok=True)
    finally:
        connection.close()


def test_heartbeats_beside_a_confirmation(tmp_path: Path) -> None:
    """Catches a worker that stops itself ("restored from a backup") because it counts while it asks."""
    held = registration.register(
        "n1", tmp_path, Capacity(1000, 1024, 4, ["process"], {"node": "n1"}, isolates_users=True)
    )
    over = threading.Event()
    beating = threading.Thread(target=beat_until, args=(held, over))
    beating.start()
    try:
        confirmed = itertools.count(1)

        def often() -> bool:
            registration.confirm(held)
            return next(confirmed) >= 1000 and held.beats > 50

        wait_until(often, 180, 0.0, "both come often enough", lambda: held.beats)
    finally:
        over.set()
        beating.join(limit(60))
        held.lock.close()
    assert held.beats > 50
