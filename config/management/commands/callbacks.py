"""``manage.py callbacks``: deliver callbacks until TERM or Ctrl-C. Several such processes may run."""

from __future__ import annotations

import os
import re
import signal
import threading
import warnings
from typing import Any

from celery.exceptions import SecurityWarning
from celery.signals import setup_logging, worker_shutting_down
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError
from kombu import Queue

from config.celery import app
from workers.callbacks.deliverer import Deliverer, threads_most
from workers.handover import CallbackPublisher

#: Celery waits for its threads; ours leave within this, then the process ends whatever Celery does.
_DETACH_S = 5.0
_STOPS = (signal.SIGTERM, signal.SIGINT)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _keep_logging(**_: Any) -> None:
    """Celery configures logging unless somebody listens to this signal; ours stays as config.logs made it."""


class Command(BaseCommand):
    help = "Deliver callbacks. Stopping it loses nothing: the next one goes on."

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.GANTRY_ROLE != "worker":
            raise CommandError(
                "start it as `manage.py callbacks`, which sets GANTRY_ROLE=worker, or set it yourself"
            )
        name = settings.GANTRY_CALLBACKS_NAME
        if not _NAME.fullmatch(name):
            raise CommandError(
                f"GANTRY_CALLBACKS_NAME is {name!r}: use letters, digits, '.', '_' and '-', at most 100"
            )
        deliverer = Deliverer(name, CallbackPublisher(app, name))
        once = threading.Lock()

        def leave(code: int) -> None:
            if once.acquire(blocking=False):
                deliverer.detach(_DETACH_S)
                os._exit(code)

        def stop_in_background(**_: Any) -> None:
            deliverer.detaching.set()
            threading.Thread(target=leave, args=(0,), name="leave").start()

        for number in _STOPS:
            signal.signal(number, lambda *_: stop_in_background())
        setup_logging.connect(_keep_logging, weak=False)
        # It needs no rights at all; where everything runs as root, messages are JSON only.
        warnings.filterwarnings("ignore", category=SecurityWarning)
        worker_shutting_down.connect(stop_in_background, weak=False)
        # No acknowledgements: what a message means is in the deliverer's memory and in the database.
        queue = f"callbacks.{name}"
        app.conf.task_queues = [Queue(queue, no_ack=True)]
        try:
            deliverer.start()
        except DatabaseError as error:
            raise CommandError(f"the database does not take a heartbeat: {error}") from error
        code = 1
        try:
            app.worker_main(
                [
                    "--quiet",
                    "worker",
                    "--pool=threads",
                    f"--concurrency={threads_most()}",
                    f"--queues={queue}",
                    f"--hostname=callbacks@{name}",
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
