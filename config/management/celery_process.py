"""What the processes `node` and `callbacks` share: each is a Celery worker with threads of its own beside it.

It ends once, whoever asks first: a signal, Celery, or itself. Celery waits for its threads without a limit;
ours leave within DETACH_S, then the process ends whatever Celery does.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final

import structlog
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging, worker_shutting_down
from django.conf import settings
from django.core.management.base import CommandError

from config.celery import app

log = structlog.get_logger(__name__)

DETACH_S: Final = 5.0
STOPS: Final = (signal.SIGTERM, signal.SIGINT)


def require_worker_role(command: str) -> None:
    """Raises CommandError where connections are not used as a worker uses them.

    Also the end of the time without garbage collection (manage.py): what was loaded until here stays.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    if settings.GANTRY_ROLE != "worker":
        raise CommandError(
            f"start it as `manage.py {command}`, which sets GANTRY_ROLE=worker, or set it yourself"
        )


def _keep_logging(**_: Any) -> None:
    """Celery configures logging unless somebody listens to this signal; ours stays as config.logs made it."""


class Leaving:
    """The end of the process. ``detach``: what it does before, in DETACH_S."""

    def __init__(self, detaching: threading.Event, detach: Callable[[], None]) -> None:
        self._detaching = detaching
        self._detach = detach
        self._once = threading.Lock()

    def leave(self, code: int) -> None:
        """End the process; returns only when another thread is doing so."""
        if self._once.acquire(blocking=False):
            try:
                self._detach()
            except Exception:
                log.exception("process.detach_failed")
                code = code or 1
            finally:
                os._exit(code)

    def in_background(self, code: int) -> None:
        """The same for who may not wait."""
        threading.Thread(target=self.leave, args=(code,), name="leave").start()

    def _asked(self, *_: Any, **__: Any) -> None:
        self._detaching.set()
        self.in_background(0)

    def listen(self) -> None:
        """From now on TERM, Ctrl-C and Celery's own end are heard."""
        for number in STOPS:
            signal.signal(number, self._asked)
        setup_logging.connect(_keep_logging, weak=False)
        # As root, too: messages are JSON only.
        warnings.filterwarnings("ignore", category=SecurityWarning)
        worker_shutting_down.connect(self._asked, weak=False)


def run_celery(queue: str, hostname: str, threads: int, leaving: Leaving) -> None:
    """Run Celery's worker for this queue, and end the process with it. Does not return."""
    # Of Django's: they were made at the start, and all of them load every page.
    os.environ["CELERY_SKIP_CHECKS"] = "true"
    code = 1
    try:
        # What `celery worker` makes of its arguments. Its command line loads Flower, a shell and their
        # toolkits: a quarter of a start.
        worker = app.Worker(
            hostname=hostname,
            pool_cls="threads",
            # One more for the canary: a node whose every place is taken hears from the broker all the same.
            concurrency=threads + 1,
            queues=queue,
            without_gossip=True,
            without_mingle=True,
            task_events=True,
            loglevel=logging.WARNING,
            quiet=True,
        )
        worker.start()
        code = worker.exitcode or 0
    except SystemExit as done:
        code = int(done.code or 0) if isinstance(done.code, int | None) else 1
    finally:
        leaving.leave(code)
        threading.Event().wait(DETACH_S + 5)  # another thread is leaving; it ends the process
