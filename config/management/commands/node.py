"""``manage.py node``: run this machine's worker until TERM or Ctrl-C. What it runs goes on without it."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from typing import Any

import structlog
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging, worker_shutting_down
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from kombu import Queue

from config.celery import app
from workers import node
from workers.registration import NameTaken

log = structlog.get_logger(__name__)

#: Celery waits for its threads; ours leave within this, then the process ends whatever Celery does.
_DETACH_S = 5.0
_STOPS = (signal.SIGTERM, signal.SIGINT)


def _keep_logging(**_: Any) -> None:
    """Celery configures logging unless somebody listens to this signal; ours stays as config.logs made it."""


class Command(BaseCommand):
    help = "Run this node's worker. Stopping or upgrading it harms nothing that runs."

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.GANTRY_ROLE != "worker":
            raise CommandError(
                "start it as `manage.py node`, which sets GANTRY_ROLE=worker, or set it yourself"
            )
        # From its registration on a worker says goodbye when it is told to stop, also before Celery listens.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            agent, held = node.build(app)
        except NameTaken as error:
            raise CommandError(str(error)) from error
        connection.close()
        once = threading.Lock()

        def leave(code: int) -> None:
            if once.acquire(blocking=False):
                agent.detach(_DETACH_S)
                held.lock.close()
                os._exit(code)

        def stop_in_background(**_: Any) -> None:
            agent.detaching.set()
            threading.Thread(target=leave, args=(0,), name="leave").start()

        for number in _STOPS:
            signal.signal(number, lambda *_: stop_in_background())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        setup_logging.connect(_keep_logging, weak=False)
        # Root is intended here: it lets each command run as a user of its own. Messages are JSON only.
        warnings.filterwarnings("ignore", category=SecurityWarning)
        worker_shutting_down.connect(stop_in_background, weak=False)
        agent.on_superseded = lambda: threading.Thread(target=leave, args=(1,), name="leave").start()
        # No acknowledgements: what a message means is in the agent's memory and in the database, a lost one
        # is noticed after GANTRY_HANDOVER_S, and acks cost a fifth of a worker's CPU.
        app.conf.task_queues = [Queue(f"node.{held.name}", no_ack=True)]
        agent.start()
        code = 1
        try:
            app.worker_main(
                [
                    "--quiet",
                    "worker",
                    "--pool=threads",
                    f"--concurrency={settings.GANTRY_NODE_SLOTS}",
                    f"--queues=node.{held.name}",
                    f"--hostname=gantry@{held.name}",
                    "--without-gossip",
                    "--without-mingle",
                    "--task-events",
                    "--loglevel=WARNING",
                ]
            )
        except SystemExit as done:
            code = int(done.code or 0) if isinstance(done.code, int | None) else 1
        finally:
            leave(code)
            threading.Event().wait(_DETACH_S + 5)  # another thread is leaving; it ends the process
