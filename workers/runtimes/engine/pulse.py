"""Does an engine answer? Must not import Django."""

from __future__ import annotations

from typing import Final

from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused

#: Seconds between two questions, and until one counts as unanswered.
PING_EVERY_S: Final = 2.0
_PATIENCE_S: Final = 3.0


def ping(engine: Engine) -> str:
    """Ask whether it answers now; why it cannot be used, empty when it can."""
    try:
        engine.ask("GET", "/containers/json", query={"limit": 1}, timeout_s=_PATIENCE_S)
    except EngineAway as error:
        return str(error)
    except EngineRefused as error:
        return f"the Docker Engine at {engine.address.shown} has a fault: {error}"
    return ""
