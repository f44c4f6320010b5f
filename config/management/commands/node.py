"""``manage.py node``: run this machine's worker until TERM or Ctrl-C. What it runs goes on without it."""

from __future__ import annotations

import signal
from typing import Any

from django.conf import settings
from django.core.checks import Tags
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from kombu import Queue

from config.celery import app
from config.management.celery_process import DETACH_S, STOPS, Leaving, require_worker_role, run_celery
from workers.node import process
from workers.node.registration import NameTaken


class Command(BaseCommand):
    help = "Run this node's worker. Stopping or upgrading it harms nothing that runs."
    requires_system_checks = (Tags.security,)  # the others load every page, to look at its URL

    def handle(self, *args: Any, **options: Any) -> None:
        require_worker_role("node")
        # From its registration on a worker says goodbye when it is told to stop, also before Celery listens.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            agent, held = process.build(app)
        except NameTaken as error:
            raise CommandError(str(error)) from error
        connection.close()

        def detach() -> None:
            agent.detach(DETACH_S)
            held.lock.close()

        leaving = Leaving(agent.detaching, detach)
        leaving.listen()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        agent.on_superseded = lambda: leaving.in_background(1)
        # No acknowledgements: what a message means is in the agent's memory and in the database, a lost one
        # is noticed after GANTRY_HANDOVER_S, and acks cost a fifth of a worker's CPU.
        queue = f"node.{held.name}"
        app.conf.task_queues = [Queue(queue, no_ack=True)]
        agent.start()
        run_celery(queue, f"gantry@{held.name}", settings.GANTRY_NODE_SLOTS, leaving)
