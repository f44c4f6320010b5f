"""The end of containers on an engine: killed, removed.

Must not import Django, the database or Celery.
"""

from __future__ import annotations

import contextlib
import time
from typing import Final

import structlog

from workers.launcher import strays
from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused

log = structlog.get_logger(__name__)

#: How long somebody else's removal of the same container is waited for.
_PATIENCE_S: Final = 10.0


def kill(engine: Engine, name: str) -> None:
    """End what runs of a container, also if its engine has forgotten that it was started."""
    with contextlib.suppress(EngineAway, EngineRefused):
        found = engine.inspect(name, timeout_s=10.0)
        if found is None:
            return
        if found["State"]["Status"] != "created":
            engine.call(lambda docker: docker.kill(name, "KILL"), timeout_s=10.0)
        elif problem := strays.end(str(found["Id"])):
            log.warning("container.not_ended", container=name, why=problem)


def remove(engine: Engine, name: str) -> None:
    """Remove a container and its anonymous volumes. Raises EngineAway, EngineRefused."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            engine.call(lambda docker: docker.remove_container(name, force=True, v=True))
            return
        except EngineRefused as error:
            if error.status == 404:
                return
            # 409: somebody is removing it at this moment
            if error.status != 409 or time.monotonic() > deadline:
                raise
        time.sleep(0.2)
