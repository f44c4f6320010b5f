"""``manage.py network``: guard the network of this machine's containers for a worker that cannot do it.

For a worker in a container of its own (docker-compose.yml): this process is in the engine's network, with the
right to set firewall rules and nothing else, and tells the worker in GANTRY_NETWORK_GUARD how it stands.
It asks neither database nor broker.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import threading
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from workers.runtimes.engine.client import Address, Engine
from workers.runtimes.engine.networks import Networks
from workers.vocabulary import pulse


class Command(BaseCommand):
    help = "Guard the network of containers for a worker in a container of its own, until TERM or Ctrl-C."
    requires_system_checks = ()  # it is given no secrets on purpose: their check would call that a fault

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.GANTRY_NETWORK_GUARD:
            raise CommandError(
                "GANTRY_NETWORK_GUARD is empty: name the file where the worker reads how the network stands"
            )
        told = Path(settings.GANTRY_NETWORK_GUARD)
        try:
            engine = Engine(Address.from_environment())
        except ValueError as error:
            raise CommandError(str(error)) from error
        try:
            networks = Networks(engine, _name(told.with_name(f"{told.name}.name")), guard_file="")
        except OSError as error:
            raise CommandError(f"GANTRY_NETWORK_GUARD: {error}") from error
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        try:
            while not stop.is_set():
                trouble = networks.look()
                pulse.write(told, networks.identity or "-", trouble)
                stop.wait(settings.GANTRY_HEARTBEAT_S)
            # The worker need not wait until it is old.
            told.unlink(missing_ok=True)
        except OSError as error:
            raise CommandError(f"GANTRY_NETWORK_GUARD: {error}") from error


def _name(kept: Path) -> str:
    """What stands for the installation, which this process cannot ask: drawn once and kept beside the guard's
    file, so that it knows its own rules after a restart. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        if name := kept.read_text().strip():
            return name
    name = secrets.token_hex(8)
    kept.write_text(f"{name}\n")
    return name
