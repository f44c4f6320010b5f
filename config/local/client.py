"""A few lines of HTTP for the demo: JSON calls with a token, and a log followed as it grows.

Standard library, no proxies. Must not import any other part of the project.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any


class Refused(Exception):
    """An answer that is not 2xx, or none at all; says what was asked and what came back."""


class Client:
    """Speaks to one Gantry as one user."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _open(self, method: str, path: str, body: object = None, timeout: float = 20.0) -> HTTPResponse:
        headers = dict(self._headers)
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, content, headers, method=method)  # noqa: S310
        try:
            response: HTTPResponse = self._opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(4096).decode(errors="replace")
            raise Refused(f"{method} {path} answers {error.code} {error.reason}: {text}") from None
        except OSError as error:
            raise Refused(f"{method} {path}: {getattr(error, 'reason', error)}") from None
        return response

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The decoded JSON answer."""
        with self._open(method, path, body) as response:
            return json.loads(response.read())

    def text(self, path: str) -> str:
        with self._open("GET", path) as response:
            return response.read().decode(errors="replace")

    def follow(self, path: str, timeout: float = 30.0) -> Iterator[str]:
        """Lines of a log while they are written, plain text or server-sent events; ends with the run.

        `timeout`: seconds of silence after which TimeoutError is raised.
        """
        with self._open("GET", path, timeout=timeout) as response:
            events = "event-stream" in response.headers.get("Content-Type", "")
            for raw in iter(response.readline, b""):
                line = raw.decode(errors="replace").rstrip("\r\n")
                if not events:
                    yield line
                elif line.startswith("data:"):
                    yield line[5:].removeprefix(" ")
