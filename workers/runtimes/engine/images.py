"""An image on this node: pulled or present as the policy of the run asks, its identity, what it starts.

``ensure`` is called while a run is prepared and takes as long as the pull does; it tells how far it is, ends
at once when the run is cancelled, and holds no database connection. A container is created from ``Image.id``,
never from the name: the name may mean something else a moment later.

An image that came with somebody's credentials is used by others only after the same registry has shown them
its manifest: a node's store must not hand one tenant what a registry shows another one only. A pull that went
well does not say that: by digest, or when any registry names an image that is there already, the engine takes
it from its own store.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Final, Literal

import structlog
from django.conf import settings

from workers.addresses import Deadline
from workers.runtimes.base import PrepareFailed
from workers.runtimes.engine import realms
from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused
from workers.runtimes.engine.image import Image
from workers.runtimes.engine.ledger import Ledger
from workers.runtimes.engine.pulling import Cause, Failure, classified, shared
from workers.vocabulary.references import BadReference, Credentials, Opening, Reference, parse
from workers.vocabulary.states import Reason

log = structlog.get_logger(__name__)

#: How often a waiting run looks whether it was cancelled, and how often it tells of progress, in seconds.
_LOOK_S: Final = 0.1
_TELL_S: Final = 1.0
#: Longest wait for a registry that is asked for a manifest, in seconds.
_ASK_S: Final = 30.0

PullPolicy = Literal["always", "missing", "never"]


class PullStopped(PrepareFailed):
    """``cancelled`` said so; whoever asked knows whether that ends the run or gives it back."""

    def __init__(self, image: Reference) -> None:
        super().__init__(Reason.NONE, f"Stopped while image {image} was pulled")


def ensure(
    engine: Engine,
    image: str,
    *,
    pull: PullPolicy,
    credentials: Credentials | None,
    tell: Callable[[str], None],
    cancelled: Callable[[], bool],
    deadline_s: float,
    opening: Opening | None = None,
) -> Image:
    """Have the image on this node. Raises PrepareFailed: Reason.IMAGE when the image cannot be had.

    ``pull``: "always" asks the registry every time and falls back to the image at hand with a note,
    "missing" asks only when there is none, "never" does not ask. An unreachable registry is tried again for
    GANTRY_REGISTRY_RETRY_S; everything together takes at most ``deadline_s`` seconds. ``opening``: before
    each pull this node asks what the registry names (``realms``); None, or one that says so: it does not.
    """
    try:
        reference = parse(image)
    except BadReference as error:
        raise PrepareFailed(Reason.IMAGE, f"Image {error}") from None
    at_hand = _inspect(engine, reference)
    mine = at_hand is not None and _ledger().may_use(str(at_hand["Id"]), credentials)
    for_all = at_hand is not None and _ledger().may_use(str(at_hand["Id"]), None)
    if pull == "never":
        if at_hand is None or not mine:
            raise PrepareFailed(
                Reason.IMAGE,
                f"Image {reference} is not on this node, and it may not be pulled: load it there",
            )
        return _described(at_hand, reference, "")
    if pull == "missing" and at_hand is not None and mine:
        return _described(at_hand, reference, "")

    def objection(seconds: float) -> Failure | None:
        if opening is None or opening.unasked:
            return None
        return realms.objection(
            opening, Deadline(min(seconds, _ASK_S), tick=lambda: _look(reference, cancelled))
        )

    failure = _pulled(
        engine, reference, credentials, tell, cancelled, deadline_s, objection, patient=not mine
    )
    found = _inspect(engine, reference)
    if failure is None and found is not None:
        failure = _unproven(engine, reference, credentials, str(found["Id"]))
    if failure is None:
        if found is None:
            raise PrepareFailed(
                Reason.RUNTIME, f"Image {reference} was pulled and is gone again: the next try", ours=True
            )
        if not (for_all and at_hand is not None and at_hand["Id"] == found["Id"]):
            _ledger().came(str(found["Id"]), credentials)
        return _described(found, reference, "")
    if found is not None and mine and _ledger().may_use(str(found["Id"]), credentials):
        note = f"image {reference} could not be pulled ({failure.said}): the local image is used"
        log.warning("image.local", image=str(reference), cause=failure.cause.value)
        return _described(found, reference, note)
    raise _refusal(reference, failure, credentials, hidden=found is not None)


def _unproven(
    engine: Engine, image: Reference, credentials: Credentials | None, image_id: str
) -> Failure | None:
    """Why a pull that went well does not say that whoever asked may have this image; None when it does."""
    holders = _ledger().holders(image_id)
    known = holders is None or (credentials is not None and credentials.holder in holders)
    if known and not image.digest:
        return None  # a tag is always asked of the registry
    if not known and image.registry not in {holder.split("/")[1] for holder in holders or ()}:
        return Failure(Cause.DENIED, "it is another registry's private image")
    headers = {} if credentials is None else {"X-Registry-Auth": credentials.header(image.registry)}
    try:
        engine.ask("GET", f"/distribution/{image}/json", headers=headers, timeout_s=_ASK_S)
    except EngineRefused as error:
        return classified(error.message)
    except EngineAway as error:
        log.warning("image.unproven", image=str(image), error=str(error))
        return Failure.of(Cause.NODE)
    return None


def _pulled(
    engine: Engine,
    image: Reference,
    credentials: Credentials | None,
    tell: Callable[[str], None],
    cancelled: Callable[[], bool],
    deadline_s: float,
    objection: Callable[[float], Failure | None],
    *,
    patient: bool,
) -> Failure | None:
    """Pull; while the registry cannot be reached again and again, if there is nothing to fall back to."""
    began, pause = time.monotonic(), 0.5
    retry_until = began + min(deadline_s, settings.GANTRY_REGISTRY_RETRY_S)
    while True:
        failure = objection(began + deadline_s - time.monotonic()) or _pull_once(
            engine, image, credentials, tell, cancelled, began + deadline_s, deadline_s
        )
        if failure is None or failure.cause is not Cause.UNREACHABLE or not patient:
            return failure
        if time.monotonic() + pause >= retry_until:
            return failure
        tell(f"Image {image} waits, {failure.said}: next try in {pause:g} s")
        _pause(pause, image, cancelled)
        pause = min(pause * 2, 10.0)


def _pause(seconds: float, image: Reference, cancelled: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        _look(image, cancelled)
        time.sleep(_LOOK_S)


def _look(image: Reference, cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise PullStopped(image)


def _pull_once(
    engine: Engine,
    image: Reference,
    credentials: Credentials | None,
    tell: Callable[[str], None],
    cancelled: Callable[[], bool],
    until: float,
    deadline_s: float,
) -> Failure | None:
    told, told_at = "", 0.0
    with shared(engine, image, credentials) as pull:
        while not pull.done.wait(_LOOK_S):
            _look(image, cancelled)
            if time.monotonic() > until:
                return Failure(Cause.BROKEN, f"not within {deadline_s:g} s (GANTRY_PULL_TIMEOUT_S)")
            how_far = str(pull.progress)
            words = f"pulling image {image}" + (f": {how_far}" if how_far else "")
            if pull.queued:
                words = f"waiting for other pulls before pulling image {image}"
            if words != told and time.monotonic() - told_at >= _TELL_S:
                tell(words)
                told, told_at = words, time.monotonic()
        return pull.failure


def _refusal(
    image: Reference, failure: Failure, credentials: Credentials | None, *, hidden: bool
) -> PrepareFailed:
    """What the user is told, and whose mistake it is."""
    if failure.cause is Cause.NODE:
        return PrepareFailed(
            Reason.RUNTIME, f"Image {image} could not be pulled: {failure.said}", ours=True, wait_s=15.0
        )
    if failure.cause is Cause.MISSING:
        fix = "check its name and tag"
    elif failure.cause is Cause.DENIED and credentials is None:
        fix = f"check its name, or store credentials: PUT /api/v1/registries/{image.registry}"
    elif failure.cause is Cause.DENIED and credentials is not None:
        fix = f"check its name and the credentials stored for {image.registry} (user {credentials.username})"
    elif failure.cause is Cause.UNREACHABLE:
        fix = f"submit it again when this node can reach {image.registry}"
    elif failure.cause is Cause.CLOSED:
        fix = (
            f"an operator can open it: the worker's log says what {image.registry} named (policy registries, "
            "GANTRY_REGISTRIES, GANTRY_REGISTRY_ALLOW_NETWORKS)"
        )
    else:
        fix = f"an operator should look at the registry {image.registry} and this node's Docker Engine"
    if hidden:
        fix += "; the copy on this node came with another's credentials"
    return PrepareFailed(Reason.IMAGE, f"Image {image} cannot be pulled: {failure.said}; {fix}")


def _inspect(engine: Engine, image: Reference) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = engine.call(lambda docker: docker.inspect_image(str(image)))
    except EngineRefused as error:
        if error.status == 404:
            return None
        if error.status == 400:  # it will say so for ever
            raise PrepareFailed(Reason.IMAGE, f"Image {image} is no name for this engine") from error
        raise PrepareFailed(Reason.RUNTIME, f"Image {image}: {error}", ours=True) from error
    except EngineAway as error:
        raise PrepareFailed(Reason.RUNTIME, f"Image {image}: {error}", ours=True) from error
    return found


def _described(found: dict[str, Any], image: Reference, note: str) -> Image:
    config = found.get("Config") or {}
    return Image(
        id=str(found["Id"]),
        digest=_digest(found.get("RepoDigests") or [], image, str(found["Id"])),
        user=str(config.get("User") or ""),
        working_dir=str(config.get("WorkingDir") or ""),
        has_command=bool(config.get("Cmd") or config.get("Entrypoint")),
        note=note,
    )


def _digest(known: list[str], image: Reference, image_id: str) -> str:
    """Under which its own repository knows the image, in full; the image's id where no repository does."""
    if image.digest:
        return str(image)
    for item in known:
        with contextlib.suppress(BadReference):
            if parse(item).name == image.name:
                return str(parse(item))
    return image_id


def _ledger() -> Ledger:
    return Ledger(settings.GANTRY_NODE_DIR / "images.json")
