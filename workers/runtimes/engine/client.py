"""The one way to the Docker Engine: the SDK's client, and what a failed call may have done.

Every call either answers, or raises EngineRefused (the engine said no) or EngineAway (nobody knows; ``sent``
says whether it may have been carried out). Callers use the SDK's own calls through ``Engine.call``; what it
has no call for, or none that can be given up, they ask by method and path. Safe for many threads. Nothing of
``~/.docker`` is ever shown to a registry: that is the worker's account, not a tenant. Must not import Django,
models or the database.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from urllib3.response import HTTPResponse

from workers.runtimes.engine.errors import FAILURES, EngineAway, EngineRefused, is_unsent, said, words_of
from workers.runtimes.engine.link import Address, Channel, adapter_for, connection_for, tls_of

__all__ = ["Address", "Answer", "Channel", "Engine", "EngineAway", "EngineRefused"]

T = TypeVar("T")

#: The API versions that this code was written and tested for; an engine that is older or newer gets its own.
_API_LEAST, _API_MOST = (1, 41), (1, 47)
CONNECT_S: Final = 5.0
# More calls at once than connections that are kept: one is closed afterwards, which is no news.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


class Answer:
    """An answer that is read in pieces; close it. Not for use by several threads."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response

    def lines(self) -> Iterator[dict[str, Any]]:
        """The JSON objects of a stream, one a line, until it ends. Raises EngineAway when it is cut."""
        try:
            for line in self._response.iter_lines():
                if line.strip():
                    yield json.loads(line)
        except FAILURES as error:
            raise EngineAway(f"its stream was cut: {said(error)}", sent=True) from error

    def read(self, most: int | None = None) -> bytes:
        """Up to ``most`` bytes; b"" at the end. Raises EngineAway when it is cut."""
        try:
            data: bytes = self._response.raw.read(most)
        except FAILURES as error:
            raise EngineAway(f"its stream was cut: {said(error)}", sent=True) from error
        return data

    def close(self) -> None:
        with contextlib.suppress(*FAILURES):
            self._response.close()


class Engine:
    """One engine. ``timeout_s`` of a call is the longest silence, not the whole time."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._adapter = adapter_for(address, CONNECT_S)
        #: By their patience: it is a property of the SDK's client. They share the adapter's connections.
        self._clients: dict[float | None, docker.APIClient] = {}
        #: "1.41"; empty until the engine has answered once.
        self._version = ""

    # --- calls ---------------------------------------------------------------------------------------

    def call(self, work: Callable[[docker.APIClient], T], *, timeout_s: float = 60.0) -> T:
        """What one call of the SDK's client answers. Raises EngineRefused, EngineAway."""
        client = self._client(timeout_s)
        with self._failing():
            return work(client)

    def inspect(self, container: str, *, timeout_s: float = 30.0) -> dict[str, Any] | None:
        """What the engine says of a container by name or id; None when there is none."""

        def look(client: docker.APIClient) -> dict[str, Any] | None:
            try:
                found: dict[str, Any] = client.inspect_container(container)
            except NotFound:
                return None
            return found

        return self.call(look, timeout_s=timeout_s)

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Any:
        """One call by its path; its JSON (None when it has none). Raises EngineRefused, EngineAway."""
        response = self._request(method, path, query, body, headers, timeout_s)
        with self._failing():
            return response.json() if response.content.strip() else None

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = 60.0,
    ) -> Iterator[Answer]:
        """A call whose answer is read in pieces (events, logs). Raises EngineRefused, EngineAway."""
        answer = Answer(self._request(method, path, query, body, headers, timeout_s, stream=True))
        try:
            yield answer
        finally:
            answer.close()

    def raw(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        *,
        timeout_s: float = 10.0,
    ) -> Channel:
        """A stream's own connection, for a thread that reads many; does not block any more.

        A POST asks the engine to hand its side over for good (attach, exec). Raises EngineRefused,
        EngineAway.
        """
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"} if method == "POST" else None
        response = self._request(method, path, query, body, upgrade, timeout_s, stream=True)
        with self._failing():
            return Channel(response)

    @contextlib.contextmanager
    def interruptible(
        self, method: str, path: str, *, headers: Mapping[str, str], taken: Callable[[socket.socket], None]
    ) -> Iterator[HTTPResponse]:
        """A call without limit of time on a connection of its own, whose socket ``taken`` is shown before
        anything is sent: shutting that down ends the call, also before its answer begins.

        Raises EngineAway; the answer may have any status, and reading it raises urllib3's errors.
        """
        prefix = self.version_prefix()
        connection = connection_for(self.address, CONNECT_S)
        try:
            with self._failing():
                connection.connect()
                connection.timeout = None
                taken(connection.sock)
                connection.request(method, prefix + path, headers=headers, preload_content=False)
                response = connection.getresponse()
            with contextlib.closing(response):
                yield response
        finally:
            connection.close()

    def record(self) -> dict[str, Any]:
        """Where it is, for the programs beside the worker (``launcher/engine.py``). Raises EngineRefused,
        EngineAway."""
        address = self.address
        return {
            "api": self.version_prefix(),
            "path": address.path,
            "host": address.host,
            "port": address.port,
            "tls": address.tls,
        }

    def close(self) -> None:
        """Close what is idle."""
        self._adapter.close()

    # --- underneath ----------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Any,
        headers: Mapping[str, str] | None,
        timeout_s: float | None,
        *,
        stream: bool = False,
    ) -> requests.Response:
        """The answer, of a status below 400. The SDK's client is a session of requests."""
        client = self._client(timeout_s)
        with self._failing():
            response: requests.Response = client.request(
                method,
                f"{client.base_url}/v{client.api_version}{path}",
                params=_told(query),
                data=body if isinstance(body, bytes) else None,
                json=body if not isinstance(body, bytes) else None,
                headers=headers,
                timeout=(CONNECT_S, timeout_s),
                stream=stream,
                allow_redirects=False,
            )
            if response.status_code >= 400:
                raise EngineRefused(response.status_code, words_of(response.content))
        return response

    def _client(self, timeout_s: float | None) -> docker.APIClient:
        found = self._clients.get(timeout_s)
        if found is None:
            found = self._clients[timeout_s] = self._made(self._negotiated(), timeout_s)
        return found

    def _made(self, version: str, timeout_s: float | None) -> docker.APIClient:
        """A client; nothing is sent."""
        try:
            client = docker.APIClient(
                base_url=self.address.shown,
                version=version,
                timeout=(CONNECT_S, timeout_s),
                tls=tls_of(self.address) or False,
            )
        except (OSError, DockerException) as error:
            raise self._away(error, sent=False) from error
        # No proxy, netrc or certificates that happen to be in the environment.
        client.trust_env = False
        client.mount(client.base_url.partition("//")[0] + "//", self._adapter)
        return client

    def _negotiated(self) -> str:
        """The API's version that both sides know, asked once."""
        if not self._version:
            try:
                with self._failing():
                    told = self._made("1.41", CONNECT_S).version(api_version=False)
                    newest, oldest = _pair(told["ApiVersion"]), _pair(told.get("MinAPIVersion", "1.12"))
            except EngineAway as error:
                raise EngineAway(str(error), sent=False) from error
            use = max(min(newest, _API_MOST), oldest)
            if use < _API_LEAST:
                least = ".".join(map(str, _API_LEAST))
                raise EngineRefused(
                    505, f"its API is version {told['ApiVersion']}, at least {least} is needed"
                )
            self._version = f"{use[0]}.{use[1]}"
        return self._version

    def version_prefix(self) -> str:
        """How paths begin: "/v1.41". Raises EngineRefused, EngineAway."""
        return f"/v{self._negotiated()}"

    @property
    def prefix(self) -> str:
        """The same; empty until the engine has answered once."""
        return f"/v{self._version}" if self._version else ""

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Turns what the libraries raise into what callers know."""
        try:
            yield
        except APIError as error:
            words = str(error.explanation or "").strip()[:500]
            raise EngineRefused(error.status_code, words or "no reason given") from error
        except FAILURES as error:
            raise self._away(error, sent=not is_unsent(error)) from error

    def _away(self, error: BaseException, *, sent: bool) -> EngineAway:
        what = f"the Docker Engine at {self.address.shown} does not answer"
        return EngineAway(f"{what}: {said(error)}", sent=sent)


def _pair(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _told(query: Mapping[str, Any] | None) -> dict[str, str]:
    """The query as text: objects and lists become JSON, true is 1, None is left out."""
    told = {}
    for name, value in (query or {}).items():
        if value is None:
            continue
        if isinstance(value, bool):
            told[name] = "1" if value else "0"
        else:
            told[name] = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return told
