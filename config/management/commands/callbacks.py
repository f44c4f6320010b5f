"""``manage.py callbacks``: deliver callbacks until TERM or Ctrl-C. Several such processes may run."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.core.checks import Tags
from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError
from kombu import Queue

from config.celery import app
from config.management.celery_process import DETACH_S, Leaving, require_worker_role, run_celery
from workers.callbacks.deliverer import Deliverer, threads_most
from workers.messages.handover import CallbackPublisher

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Command(BaseCommand):
    help = "Deliver callbacks. Stopping it loses nothing: the next one goes on."
    requires_system_checks = (Tags.security,)  # the others load every page, to look at its URL

    def handle(self, *args: Any, **options: Any) -> None:
        require_worker_role("callbacks")
        name = settings.GANTRY_CALLBACKS_NAME
        if not _NAME.fullmatch(name):
            raise CommandError(
                f"GANTRY_CALLBACKS_NAME is {name!r}: use letters, digits, '.', '_' and '-', at most 100"
            )
        deliverer = Deliverer(name, CallbackPublisher(app, name))
        leaving = Leaving(deliverer.detaching, lambda: deliverer.detach(DETACH_S))
        leaving.listen()
        # No acknowledgements: what a message means is in the deliverer's memory and in the database.
        queue = f"callbacks.{name}"
        app.conf.task_queues = [Queue(queue, no_ack=True)]
        try:
            deliverer.start()
        except DatabaseError as error:
            raise CommandError(f"the database does not take a heartbeat: {error}") from error
        run_celery(queue, f"callbacks@{name}", threads_most(), leaving)
