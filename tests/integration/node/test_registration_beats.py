"""A worker's own heartbeats never make its database look older than it is."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from django.db import connection

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
        deadline = time.monotonic() + 60  # a busy machine gives the other thread less
        confirmed = 0
        while confirmed < 1000 or (held.beats <= 50 and time.monotonic() < deadline):
            registration.confirm(held)
            confirmed += 1
    finally:
        over.set()
        beating.join(30)
        held.lock.close()
    assert held.beats > 50
