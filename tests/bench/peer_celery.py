"""The peer's Celery application: thread pool, Redis, one task that runs a command and updates its row."""

from __future__ import annotations

import subprocess
import time

import django
from celery import Celery

django.setup()

from django.conf import settings
from django.db import connection

app = Celery("peer", broker=settings.CELERY_BROKER_URL)
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    task_default_queue="peer",
    worker_hijack_root_logger=False,
)


@app.task(name="peer.run_command")
def run_command(item: int) -> None:
    """Run the no-op, write its end."""
    done = subprocess.run(["/bin/sh", "-c", "true"], capture_output=True, check=False)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE bench_item SET state = 'done', exit_code = %s WHERE id = %s", [done.returncode, item]
        )


@app.task(name="peer.latency")
def latency(sent: float, key: str) -> None:
    """Note how long the message took."""
    took = time.time() - sent
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO bench_latency (key, seconds) VALUES (%s, %s)", [key, took])
