"""Images: looks whether the one that a container needs is here, and pulls it, without any login."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import quote

from workers.runtimes.base import PrepareFailed
from workers.runtimes.container_config import Image
from workers.runtimes.engine import Engine, EngineAway, EngineRefused
from workers.states import Reason

__all__ = ["Image", "ensure"]


def ensure(
    engine: Engine,
    image: str,
    *,
    pull: Literal["always", "missing", "never"],
    credentials: Any,
    tell: Callable[[str], None],
    cancelled: Callable[[], bool],
    deadline_s: float,
) -> Image:
    """The image, pulled first where ``pull`` says so. Raises PrepareFailed, EngineAway."""
    local = _look(engine, image)
    if pull == "never" or (pull == "missing" and local is not None):
        failure = "it is not on this node, and pulling is off"
    else:
        tell(f"Pulling image {image}")
        failure = _pull(engine, image, cancelled, deadline_s)
        if not failure:
            local = _look(engine, image)
            failure = "the registry delivered something else"
        elif local is not None:
            return Image(
                **{**local.__dict__, "note": f"forced pull failed ({failure}): the local image runs"}
            )
    if local is None:
        raise PrepareFailed(Reason.IMAGE, f"Image {image} cannot be had: {failure}")
    return local


def _pull(engine: Engine, image: str, cancelled: Callable[[], bool], deadline_s: float) -> str:
    name, _, tag = image.rpartition(":")
    if not name or "/" in tag or "@" in image:
        name, tag = image, "" if "@" in image else "latest"
    try:
        with engine.stream(
            "POST", "/images/create", query={"fromImage": name, "tag": tag or None}, timeout_s=deadline_s
        ) as answer:
            for event in answer.lines():
                if event.get("error"):
                    return str(event["error"])
                if cancelled():
                    return "cancelled"
    except EngineRefused as error:
        return error.message
    except EngineAway as error:
        if not error.sent:
            raise
        return str(error)
    return ""


def _look(engine: Engine, image: str) -> Image | None:
    try:
        found = engine.ask("GET", f"/images/{quote(image, safe='')}/json")
    except EngineRefused as error:
        if error.status == 404:
            return None
        if error.status == 400:
            raise PrepareFailed(Reason.IMAGE, f"Image {image}: {error.message}") from error
        raise
    config = found.get("Config") or {}
    digests = found.get("RepoDigests") or []
    return Image(
        id=found["Id"],
        digest=digests[0] if digests else found["Id"],
        user=config.get("User") or "",
        working_dir=config.get("WorkingDir") or "",
        has_command=bool(config.get("Cmd") or config.get("Entrypoint")),
    )
