"""Which container an exec means, and which containers of a service run here.

A container that a tenant may not enter is answered exactly like one that does not exist; Gantry's own never
are targets: the containers of runs, and those of the service itself. Must not import Django.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from workers.runtimes.base import PrepareFailed
from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused
from workers.vocabulary.specs import ALL_CONTAINERS
from workers.vocabulary.states import Reason

#: What an id or a name looks like: anything else ("..", "a/b") would be another call of the engine.
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
#: Whoever carries one of these is Gantry's own: containers of runs, containers of the service.
_OURS: Final = ("gantry.installation", "gantry.service")
#: Longest wait for an answer to a question of the API, in seconds; the agent waits meanwhile.
_QUESTION_S: Final = 1.5


def find(engine: Engine, asked: str, selectors: Collection[str]) -> dict[str, str]:
    """{"Id", "Image", "Name", "Since"} of the running container that a full id, a unique prefix or a name
    means; ``Since`` is when it was started, as the engine writes it.

    Raises PrepareFailed, EngineAway, EngineRefused.
    """
    found: Mapping[str, Any] | None
    try:
        found = engine.inspect(asked) if _NAME.fullmatch(asked) else None
    except EngineRefused as error:
        if error.status >= 500 and "multiple" not in error.message.lower():
            raise
        found = {}  # several begin so: perhaps only one of them may be entered
    if found is None:
        raise _none(asked)
    if found and _allowed(found["Config"].get("Labels"), selectors):
        return _running(asked, found)
    everyone = engine.ask("GET", "/containers/json", query={"all": True}, timeout_s=10.0)
    may = [item for item in everyone if _allowed(item.get("Labels"), selectors)]
    for fits in (
        [item for item in may if item["Id"] == asked],
        [item for item in may if f"/{asked}" in (item.get("Names") or ())],
        [item for item in may if item["Id"].startswith(asked)],
    ):
        if len(fits) > 1:
            message = f"the ids of {len(fits)} containers begin with {asked}: write more of the one meant"
            raise PrepareFailed(Reason.CREATE, message)
        if fits and (found := engine.inspect(fits[0]["Id"])):
            return _running(asked, found)
    raise _none(asked)


def _none(asked: str) -> PrepareFailed:
    return PrepareFailed(Reason.CREATE, f"there is no container {asked} on this node")


def _running(asked: str, found: Mapping[str, Any]) -> dict[str, str]:
    state = found["State"]
    if state["Status"] != "running":
        raise PrepareFailed(Reason.CREATE, f"container {asked} is not running, it is {state['Status']}")
    name = str(found.get("Name") or "").lstrip("/")
    return {"Id": found["Id"], "Image": found["Image"], "Name": name, "Since": state["StartedAt"]}


def _allowed(labels: Mapping[str, str] | None, selectors: Iterable[str]) -> bool:
    given = labels or {}
    if any(name in given for name in _OURS):
        return False
    for selector in selectors:
        name, sign, value = selector.partition("=")
        if selector == ALL_CONTAINERS or (given.get(name) == value if sign else name in given):
            return True
    return False


def running(engine: Engine, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to ``workers.asking.CONTAINERS``."""
    service, app = str(payload.get("service") or ""), str(payload.get("app") or "")
    try:
        there = engine.ask("GET", "/containers/json", timeout_s=_QUESTION_S)
    except (EngineAway, EngineRefused) as error:
        return {"error": str(error)}
    found = [
        {"id": item["Id"], "name": str((item.get("Names") or ["/"])[0]).lstrip("/")}
        for item in there
        if _allowed(item.get("Labels"), payload.get("selectors") or ())
        and item.get("State") == "running"
        and _belongs(item.get("Labels") or {}, service, app)
    ]
    return {"containers": sorted(found, key=lambda item: str(item["name"]))}


def _belongs(labels: Mapping[str, str], service: str, app: str) -> bool:
    """Of the Swarm service, or the service of docker compose with or without its project; else of the app."""
    if not service:
        return bool(app) and labels.get("app") == app
    composed = labels.get("com.docker.compose.service", "")
    project = labels.get("com.docker.compose.project", "")
    names = {labels.get("com.docker.swarm.service.name", ""), composed}
    if composed:
        names |= {f"{project}_{composed}", f"{project}-{composed}"}
    return service in names


def engine_names(engine: Engine) -> tuple[str, str]:
    """The engine's own id, and what its Swarm calls it; empty where there is none, or no answer."""
    try:
        info = engine.call(lambda docker: docker.info(), timeout_s=5.0)
    except (EngineAway, EngineRefused):
        return "", ""
    return str(info.get("ID") or ""), str((info.get("Swarm") or {}).get("NodeID") or "")
