"""Requests to one WebDAV server as one user: webdav4's client over connections that the guard has seen.

httpx takes whatever it gets for connections from httpcore, whose network is a class of ours: it connects to
the checked addresses and to nothing else. Redirects are not followed, but for the slash that some servers
want at the end of a folder.
"""

from __future__ import annotations

import http.client
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

import httpcore
import httpx
from django.conf import settings
from webdav4.http import Client

from workers.addresses.http import CONNECT_S
from workers.storage.trees.base import STALL_S, StorageFailed, Trouble, shown
from workers.storage.trees.guarding import reachable, trusting
from workers.storage.trees.webdav.answers import NotDav, resources
from workers.vocabulary.errors import AddressRefused, EngineError, InvalidInput
from workers.vocabulary.transfers.reach import Reach

_BY_STATUS: Final = {
    401: Trouble.DENIED,
    403: Trouble.DENIED,
    404: Trouble.MISSING,
    408: Trouble.AWAY,
    409: Trouble.MISSING,  # RFC 4918: a folder on the way is missing
    410: Trouble.MISSING,
    412: Trouble.CHANGED,
    413: Trouble.FULL,
    414: Trouble.NAME,
    423: Trouble.AWAY,
    425: Trouble.AWAY,
    429: Trouble.AWAY,
    507: Trouble.FULL,
}
_REDIRECTS: Final = (301, 302, 307, 308)
#: Of an answer that is no content and no list.
_MOST: Final = 1 << 20


class _Network(httpcore.SyncBackend):
    """Connects to checked addresses."""

    def __init__(self, guarded: bool, scheme: str) -> None:
        super().__init__()
        self._guarded = guarded
        self._scheme = scheme

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError("it has no address")
        try:
            found = reachable(host, port, guarded=self._guarded, scheme=self._scheme)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        for address in found:
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Transport(httpx.HTTPTransport):
    """Speaks HTTP/1.1 over it, without a proxy of the environment."""

    def __init__(self, reach: Reach, scheme: str, streams: int) -> None:
        context = trusting(tuple(reach.cas))
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=None,  # as many as there are threads
            max_keepalive_connections=2 * streams,
            keepalive_expiry=5.0,  # below what servers have: one that is closed in our hands fails a request
            network_backend=_Network(reach.guarded, scheme),
        )


class Dav:
    """One server. ``where`` is its name for people; paths are bytes within the site."""

    def __init__(self, reach: Reach, streams: int) -> None:
        _silence()
        scheme = reach.options.get("scheme", "https")
        host = f"[{reach.host}]" if ":" in reach.host else reach.host
        port = reach.port or (443 if scheme == "https" else 80)
        self.where = reach.shown
        self.root = b"/".join([b"", *(word for word in reach.path.encode().split(b"/") if word)])
        self.origin = f"{scheme}://{host}:{port}"
        #: Who asks where: files of equal ones can be copied by the server.
        self.account = (self.origin, reach.credentials)
        user, password = reach.credentials.username, reach.credentials.password
        with _told(self.where):
            self._http = Client(
                transport=_Transport(reach, scheme, streams),
                auth=httpx.BasicAuth(user.encode(), password.encode()) if user or password else None,
                timeout=httpx.Timeout(STALL_S, connect=CONNECT_S),
                headers={"User-Agent": f"gantry/{settings.VERSION}", "Accept-Encoding": "identity"},
                trust_env=False,
            )

    def close(self) -> None:
        self._http.close()

    def url(self, path: bytes, *, slash: bool = False) -> str:
        """Every byte that is no letter, digit or one of ``-._~`` is percent-encoded."""
        found = quote_from_bytes(self.root + path.rstrip(b"/"), safe="/")
        return self.origin + (f"{found}/" if slash or not found else found)

    @contextmanager
    def asked(
        self,
        method: str,
        path: bytes,
        headers: Mapping[str, str] | None = None,
        content: Any = None,
        *,
        good: tuple[int, ...] = (200, 201, 204, 207),
        slash: bool = False,
        wait_s: float = STALL_S,
    ) -> Iterator[httpx.Response]:
        """The answer, its body still to be read. Raises StorageFailed for any status but the good ones.

        ``slash``: it is about a folder. ``wait_s``: of silence, where a server may work for long.
        """
        request = self._http.build_request(
            method,
            self.url(path, slash=slash),
            headers=headers,
            content=content,
            timeout=httpx.Timeout(STALL_S, connect=CONNECT_S, read=wait_s),
        )
        with _told(f"{self.where}: {method} {shown(path)}"):
            answer = self._http.send(request, stream=True)
        try:
            if answer.status_code in _REDIRECTS and not slash and self._wants_slash(path, answer):
                answer.close()
                with self.asked(
                    method, path, headers, content, good=good, slash=True, wait_s=wait_s
                ) as again:
                    yield again
                return
            if answer.status_code not in good:
                raise self.refused(method, path, answer.status_code)
            yield answer
        finally:
            answer.close()

    def ask(self, method: str, path: bytes, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
        """The same; the body is read. 207 to anything but PROPFIND tells of what could not be done."""
        with self.asked(method, path, headers, **more) as answer:
            if answer.status_code == 207:
                for told in self.listed(path, answer):
                    if told.status >= 400:
                        raise self.refused(method, path, told.status)
            else:
                for _ in self.pieces(path, answer, _MOST):
                    pass
            return answer.headers

    def pieces(self, path: bytes, answer: httpx.Response, most: int | None = None) -> Iterator[bytes]:
        """The body as it comes."""
        come = 0
        with _told(f"{self.where}: {shown(path)}"):
            for piece in answer.iter_raw():
                yield piece
                come += len(piece)
                if most is not None and come > most:
                    raise StorageFailed(
                        f"{self.where}: {shown(path)}: the server's answer does not end", Trouble.OTHER
                    )

    def listed(self, path: bytes, answer: httpx.Response) -> Iterator[Any]:
        """The resources in an answer's body."""
        try:
            yield from resources(self.pieces(path, answer))
        except NotDav as error:
            raise StorageFailed(
                f"{self.where}: {shown(path)}: the answer is not WebDAV's: {error}", Trouble.OTHER
            ) from None

    def refused(self, method: str, path: bytes, status: int) -> StorageFailed:
        """What a status means."""
        trouble = _BY_STATUS.get(status) or (Trouble.AWAY if status >= 500 else Trouble.OTHER)
        words = http.client.responses.get(status, "")
        more = ": redirects are not followed, name that address in the site" if status in _REDIRECTS else ""
        return StorageFailed(
            f"{self.where} said {status} {words} to {method} of {shown(path)}{more}", trouble, status=status
        )

    def _wants_slash(self, path: bytes, answer: httpx.Response) -> bool:
        """It sends us on to the same place with a slash at its end. Whatever host it names, we ask ours."""
        where = urlsplit(answer.headers.get("Location", "")).path
        return unquote_to_bytes(where) == self.root + path + b"/"


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turns whatever a request raises into StorageFailed."""
    try:
        yield
    except (AddressRefused, InvalidInput) as error:
        raise StorageFailed(f"{what}: {error.message}", Trouble.REFUSED) from None
    except StorageFailed:
        raise
    except EngineError as error:
        raise StorageFailed(f"{what}: {error.message}", Trouble.AWAY) from None
    except httpx.TimeoutException as error:
        raise StorageFailed(
            f"{what}: no answer ({type(error).__name__}), it is tried again later", Trouble.AWAY
        ) from None
    except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeEncodeError, ValueError) as error:
        raise StorageFailed(
            f"{what}: a request cannot carry that ({type(error).__name__})", Trouble.OTHER
        ) from None
    except (httpx.HTTPError, OSError) as error:
        words = str(error) or type(error).__name__
        raise StorageFailed(f"{what}: the connection failed ({words})", Trouble.AWAY) from None


def _warnings(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def _silence() -> None:
    """httpx logs every request's address, httpcore every header."""
    for name in ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy", "httpcore"):
        logger = logging.getLogger(name)
        if _warnings not in logger.filters:
            logger.addFilter(_warnings)
