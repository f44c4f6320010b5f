"""Periodic duties of families: what a family looks after by itself, such as the admission of what waits.

A family registers a duty by name (settings, GANTRY_DUTIES: name -> dotted path of a ``Duty``); the engine
never imports a family. Every worker does them all, in a thread of their own: a slow one delays the other
duties, not the engine's upkeep. So a duty is bounded, idempotent and safe in several processes at once. What
is only to be deleted when it is old is no duty but a pruner (GANTRY_PRUNERS): ``manage.py prune`` does it,
too.
"""

from __future__ import annotations

import time

import structlog
from django.conf import settings
from django.utils.module_loading import import_string

from workers.vocabulary.duties import Duty

log = structlog.get_logger(__name__)

#: Between two looks at the clock where nothing is due or registered.
_IDLE_S = 3600.0


class Rota:
    """Which duty is due when, for one process. Raises ImportError when a registered one cannot be found."""

    def __init__(self) -> None:
        self._duties: dict[str, Duty] = {
            name: import_string(dotted) for name, dotted in settings.GANTRY_DUTIES.items()
        }
        self._due = dict.fromkeys(self._duties, float("-inf"))

    def turn(self, rung: bool = False) -> float:
        """Do what is due; returns the seconds until the next one is.

        ``rung``: somebody rang; those that hear it are due. A duty that fails is told, and due again.
        """
        for name, duty in self._duties.items():
            if time.monotonic() >= self._due[name] or (rung and duty.hears):
                self._do(name, duty)
                self._due[name] = time.monotonic() + duty.every_s
        return max(0.0, min(self._due.values(), default=time.monotonic() + _IDLE_S) - time.monotonic())

    def _do(self, name: str, duty: Duty) -> None:
        try:
            done = duty.look()
        except Exception:
            log.exception("duty.failed", duty=name, again_in_s=duty.every_s)
            return
        if any(done.values()):
            log.info("duty.done", duty=name, **{what: count for what, count in done.items() if count})
