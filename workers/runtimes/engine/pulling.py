"""One pull by the engine: asked for once, followed by several runs, given up when none waits any more.

The engine is asked with the credentials given and no others: what the worker's own account is logged in to
(``~/.docker``) is never used for a tenant. Nothing here waits for the engine in the caller's thread.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import urlencode

import structlog
from django.conf import settings
from docker.errors import StreamParseError
from docker.utils.json_stream import json_stream
from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused
from workers.vocabulary.errors import without_user_info
from workers.vocabulary.references import Credentials, Reference

log = structlog.get_logger(__name__)

_MIB: Final = 1024 * 1024
#: Longest part of the engine's own words that is logged.
_SHOWN: Final = 1000


_UNFINISHED: Final = (
    *(EngineAway, EngineRefused, HTTPError, HTTPException, StreamParseError, OSError, ValueError),
)


class Cause(Enum):
    """Why a pull failed, as far as it matters what happens next."""

    MISSING = "missing"  # the registry has no such image: the user's mistake
    DENIED = "denied"  # the registry refuses: wrong or no credentials, or no such image
    UNREACHABLE = "unreachable"  # nobody answers, or not now: another try may help
    BROKEN = "broken"  # something that another try will not mend: a certificate, a wrong protocol
    CLOSED = "closed"  # the registry is, or sends to, an address that nobody opened
    NODE = "node"  # this node or its engine is to blame


#: What is said of each, to clients too: never the engine's or a registry's words, which tell what answered at
#: addresses that the registry names.
_SAID: Final[dict[Cause, str]] = {
    Cause.MISSING: "its registry has no such image",
    Cause.DENIED: "its registry refuses it",
    Cause.UNREACHABLE: "its registry cannot be reached or has no time",
    Cause.BROKEN: "its registry gives no usable answer",
    Cause.NODE: "this node's Docker Engine cannot take it",
}


@dataclass(frozen=True)
class Failure:
    """A pull that failed. ``said``: our words."""

    cause: Cause
    said: str

    @classmethod
    def of(cls, cause: Cause) -> Failure:
        """Of a kind, in the words for it."""
        return cls(cause, _SAID[cause])


#: The first rule that is found in the engine's words (in lower case) counts.
_RULES: Final[tuple[tuple[Cause, str], ...]] = (
    (Cause.NODE, r"no space left on device|read-only file system|input/output error"),
    (Cause.UNREACHABLE, r"toomanyrequests|too many requests|http status: 5\d\d|status code 5\d\d"),
    (Cause.DENIED, r"denied|unauthorized|no basic auth|authentication required|incorrect username"),
    (Cause.MISSING, r"manifest unknown|not found|does not exist|name unknown|no matching manifest"),
    (Cause.MISSING, r"invalid reference|name invalid|repository name"),
    (
        Cause.BROKEN,
        r"x509|certificate|http response to https client|malformed http|unsupported|error parsing",
    ),
    (
        Cause.UNREACHABLE,
        r"dial tcp|no such host|connection refused|timeout|deadline|no route|unreachable|eof",
    ),
    (Cause.UNREACHABLE, r"reset by peer|canceled|broken pipe|temporary failure|tls handshake"),
)


def classified(said: str) -> Failure:
    """What the engine's words mean, which are for the log. Unknown ones count as worth another try."""
    lower = said.lower()
    cause = next((cause for cause, rule in _RULES if re.search(rule, lower)), Cause.UNREACHABLE)
    # The engine quotes whole answers of whatever host was named: no log is a window into other services.
    words = re.split(r"response body:|invalid character", said, maxsplit=1)[0]
    log.info("image.not_pulled", cause=cause.value, said=without_user_info(words)[:_SHOWN])
    return Failure.of(cause)


class Progress:
    """How far a pull has come, over all its layers."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}
        self._unpacking = False

    def see(self, event: dict[str, Any]) -> None:
        """One message of the engine."""
        layer, status = str(event.get("id", "")), event.get("status")
        detail = event.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total"):
            self._layers[layer] = (int(detail.get("current") or 0), int(detail["total"]))
        elif status in ("Download complete", "Extracting", "Pull complete") and layer in self._layers:
            total = self._layers[layer][1]
            self._layers[layer] = (total, total)
        self._unpacking = status == "Extracting"

    def __str__(self) -> str:
        have = sum(current for current, _ in list(self._layers.values()))
        total = sum(total for _, total in list(self._layers.values()))
        if not total:
            return ""
        if have >= total and self._unpacking:
            return f"unpacking {total / _MIB:.0f} MiB"
        return f"{have * 100 // total} % ({have / _MIB:.0f} of {total / _MIB:.0f} MiB)"


class Pull:
    """A pull in a thread of its own, which ``shared`` starts and ends."""

    def __init__(self, engine: Engine, image: Reference, credentials: Credentials | None) -> None:
        self.image = image
        self.progress = Progress()
        self.failure: Failure | None = None
        self.done = threading.Event()
        self.abandoned = threading.Event()
        #: It waits for its turn.
        self.queued = True
        #: How many runs wait for it; under the module's lock.
        self.waiting = 0
        self._engine = engine
        #: The connection of this pull alone: closing it ends it, also before the registry's first answer.
        self._channel: socket.socket | None = None
        self._credentials = credentials

    def run(self) -> None:
        """The thread. Ends when the engine has the image, has failed, or nobody waits."""
        places = _places()
        try:
            while not places.acquire(timeout=0.2):
                if self.abandoned.is_set():
                    return
            try:
                self.queued = False
                if not self.abandoned.is_set():
                    self.failure = self._ask()
            finally:
                places.release()
        except _UNFINISHED as error:
            log.warning("image.unfinished", image=str(self.image), error=str(error)[:_SHOWN])
            self.failure = Failure(Cause.NODE, "this node's Docker Engine did not finish it")
        except BaseException:
            self.failure = Failure(Cause.NODE, "it ended unexpectedly, see the worker's log")
            raise
        finally:
            _forget(self)
            self.done.set()

    def abandon(self) -> None:
        """Nobody waits any more: the engine stops a pull whose reader goes away."""
        self.abandoned.set()
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)

    def _take(self, channel: socket.socket) -> None:
        self._channel = channel
        if self.abandoned.is_set():
            raise EngineAway("nobody waits for it any more", sent=False)

    def _ask(self) -> Failure | None:
        query = urlencode({"fromImage": self.image.name, "tag": self.image.digest or self.image.tag})
        headers = {}
        if self._credentials is not None:
            headers["X-Registry-Auth"] = self._credentials.header(self.image.registry)
        with self._engine.interruptible(
            "POST", f"/images/create?{query}", headers=headers, taken=self._take
        ) as response:
            if response.status == 400:
                return Failure(Cause.BROKEN, "the Docker Engine takes it for no image's name")
            if response.status != 200:
                return classified(_message(response))
            finished = False
            for event in json_stream(response.stream()):
                if "error" in event:
                    return classified(str(event["error"]))
                self.progress.see(event)
                # The engine's last word; without it a stream that was cut would look like one that has ended.
                finished = finished or str(event.get("status", "")).startswith("Status: ")
        return None if finished else Failure(Cause.NODE, "the Docker Engine's answer broke off")


def _message(response: HTTPResponse) -> str:
    try:
        return str(json.loads(response.data)["message"])
    except (ValueError, KeyError, TypeError):
        return f"the Docker Engine answered with status {response.status}"


_lock = threading.Lock()
#: (engine, image, whose credentials) -> the pull that runs now.
_running: dict[tuple[int, str, str], Pull] = {}
#: (GANTRY_PULLS, a place for each of them).
_gate: tuple[int, threading.BoundedSemaphore] = (0, threading.BoundedSemaphore(1))


def _places() -> threading.BoundedSemaphore:
    """As many pulls at once as GANTRY_PULLS says."""
    global _gate
    with _lock:
        if _gate[0] != settings.GANTRY_PULLS:
            _gate = (settings.GANTRY_PULLS, threading.BoundedSemaphore(settings.GANTRY_PULLS))
        return _gate[1]


def _forget(pull: Pull) -> None:
    with _lock:
        for key, known in list(_running.items()):
            if known is pull:
                del _running[key]


@contextlib.contextmanager
def shared(engine: Engine, image: Reference, credentials: Credentials | None) -> Iterator[Pull]:
    """The pull of this image with these credentials that runs now, or a new one."""
    key = (id(engine), str(image), credentials.holder if credentials else "")
    with _lock:
        pull = _running.get(key)
        if pull is None or pull.abandoned.is_set():
            pull = _running[key] = Pull(engine, image, credentials)
            threading.Thread(target=pull.run, name=f"pull {image}"[:60], daemon=True).start()
        pull.waiting += 1
    try:
        yield pull
    finally:
        with _lock:
            pull.waiting -= 1
            last = pull.waiting == 0
            if last and not pull.done.is_set():
                pull.abandoned.set()
        if last:
            pull.abandon()
