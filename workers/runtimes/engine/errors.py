"""How a call to the engine fails: was anything sent, and in which words. Pure.

Must not import Django.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Final

import urllib3.exceptions
from docker.errors import DockerException

#: What a library raises when a call fails on the way. requests' own are OSErrors.
FAILURES: Final = (
    OSError,
    DockerException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    ValueError,
    # The SDK takes it for granted that whoever answers with JSON is an engine.
    LookupError,
    TypeError,
)
#: These come from connecting only: nothing was sent.
_UNSENT: Final = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    ssl.SSLCertVerificationError,
    ConnectionRefusedError,
    FileNotFoundError,
    PermissionError,
)


class EngineAway(Exception):
    """The engine did not answer. ``sent``: the request may have been carried out all the same."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class EngineRefused(Exception):
    """The engine answered with an error: its HTTP status and its words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} (the engine answered {status})")
        self.status = status
        self.message = message


def _inside(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it wraps: libraries put them into arguments, a ``reason`` or the cause."""
    found: BaseException | None = error
    while found is not None:
        yield found
        held = (getattr(found, "reason", None), *found.args, found.__cause__)
        found = next((item for item in held if isinstance(item, BaseException)), None)


def is_unsent(error: BaseException) -> bool:
    return any(isinstance(each, _UNSENT) for each in _inside(error))


def said(error: BaseException) -> str:
    """The words of the innermost error, without the name of the library's object that had it."""
    *_, root = _inside(error)
    return str(root).rpartition("): ")[2] or type(root).__name__


def words_of(data: bytes) -> str:
    """The message of an error answer."""
    try:
        return str(json.loads(data)["message"]).strip()[:500]
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace").strip()[:500] or "no reason given"
