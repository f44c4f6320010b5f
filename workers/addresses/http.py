"""An HTTP request to an address that a client has named: connects to a checked address and nowhere else.

What is looked up is checked and then connected to, so that a second look-up with another answer (DNS
rebinding) cannot happen; Host and the TLS name stay those of the URL. Redirects go through the same check.
No proxy from the environment, no cookies. One deadline covers everything, a slow drip included.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import urljoin

from django.conf import settings

from workers.addresses.guard import permitted
from workers.addresses.urls import Address, Target, parse
from workers.vocabulary.errors import AddressRefused, EngineError, InvalidInput

#: Host name -> addresses. Raises OSError.
Resolver = Callable[[str], list[str]]

MAX_REDIRECTS: Final = 5
#: Of a name with more addresses than these the first are tried.
MAX_ADDRESSES: Final = 8
CONNECT_S: Final = 10.0
#: No timeout of the system is longer than that, and none may be infinite.
_LONGEST_S: Final = 86400.0
#: How often a wait looks whether it is still wanted.
SLICE_S: Final = 0.5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
#: Look-ups that are under way; one that hangs occupies its place until it ends.
_lookups = threading.BoundedSemaphore(32)


class AddressFailed(EngineError):
    """The address may be reached, but the request failed: no such name, no answer, cut off, too slow."""

    code = "address_failed"


@dataclass
class Deadline:
    """How long a request may take as a whole (inf: no matter), and how long without a byte, in seconds.

    ``tick`` is called at least every half second while waiting; what it raises ends the request.
    """

    total_s: float
    stall_s: float = 30.0
    tick: Callable[[], None] = lambda: None
    _end: float = field(init=False)

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.total_s

    def left(self) -> float:
        """Seconds left; TimeoutError when there are none."""
        self.tick()
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"it took longer than {self.total_s:g} s")
        return min(left, _LONGEST_S)


def system_resolver(host: str) -> list[str]:
    """The machine's own resolver: every address once, in its order of preference."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def look_up(resolver: Resolver, host: str, deadline: Deadline) -> list[str]:
    """The addresses of a name. Raises OSError.

    A look-up has no time limit of its own: it is waited for in another thread, as long as there is time.
    """
    answer: list[list[str] | OSError] = []
    done = threading.Event()

    def work() -> None:
        try:
            answer.append(resolver(host))
        except (OSError, UnicodeError) as error:
            answer.append(OSError(str(error)))
        finally:
            _lookups.release()
            done.set()

    while not _lookups.acquire(timeout=min(SLICE_S, deadline.left())):
        continue
    threading.Thread(target=work, name="look-up", daemon=True).start()
    while not done.wait(min(SLICE_S, deadline.left())):
        continue
    if not answer or isinstance(answer[0], OSError):
        raise OSError(
            f"its name {host} cannot be looked up ({answer[0] if answer else 'the resolver failed'})"
        )
    return answer[0]


def tls_context(authority: str | None = "") -> ssl.SSLContext:
    """For the machine's authorities, or for the one whose certificates (PEM) are given; None: for whoever."""
    context = ssl.create_default_context(cadata=authority or None)
    # Chain and name, as Python 3.12 and curl do. From 3.13 on the default also refuses what private
    # authorities make without some extensions: a new Python would cut off receivers.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if authority is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


_tls: Final = lru_cache(maxsize=16)(tls_context)


class _Timed(io.RawIOBase):
    """Reads a socket slice by slice, so that the deadline and a cancel are noticed whatever the peer does."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline
        # The connection may be closed before the answer is read: this keeps the socket open until then.
        self._hold = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        quiet_until = time.monotonic() + self._deadline.stall_s
        while True:
            self._sock.settimeout(min(SLICE_S, self._deadline.left()))
            try:
                return self._sock.recv_into(buffer)
            except TimeoutError:
                if time.monotonic() > quiet_until:
                    raise TimeoutError(f"nothing came for {self._deadline.stall_s:g} s") from None

    def close(self) -> None:
        self._hold.close()
        super().close()


class _Connection(http.client.HTTPConnection):
    """Connects to one of the given addresses; the target's name is used for TLS only."""

    def __init__(
        self, target: Target, addresses: list[Address], deadline: Deadline, authority: str | None = ""
    ) -> None:
        super().__init__(target.host, target.port)
        self._authority = authority
        self._target = target
        self._addresses = addresses[:MAX_ADDRESSES]
        self._deadline = deadline

    def connect(self) -> None:
        sock = self._connected()
        try:
            if self._target.scheme == "https":
                sock.settimeout(min(CONNECT_S, self._deadline.left()))
                sock = _tls(self._authority).wrap_socket(sock, server_hostname=self._target.host)
            sock.settimeout(self._deadline.left())
        except BaseException:
            sock.close()
            raise
        self.sock = sock

    def _connected(self) -> socket.socket:
        failure: OSError = OSError("it has no address")
        for address in self._addresses:
            try:
                # An address, not a name: this looks nothing up.
                return socket.create_connection(
                    (str(address), self._target.port), min(CONNECT_S, self._deadline.left())
                )
            except OSError as error:
                failure = error
        raise failure

    def response_class(  # type: ignore[override]
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, debuglevel, method, url)
        response.fp.close()
        response.fp = io.BufferedReader(_Timed(sock, self._deadline), 64 * 1024)
        return response


class Response:
    """An answer whose body is read as it comes."""

    def __init__(self, answer: http.client.HTTPResponse, target: Target) -> None:
        self._answer = answer
        self.target = target
        self.status = answer.status
        self.reason = answer.reason
        self.headers = answer.headers
        #: Length of the body as announced, None if it was not.
        self.length = answer.length

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; empty at the end. AddressFailed when the connection breaks or is too slow."""
        with told(self.target):
            return self._answer.read(size)

    def body(self, limit: int) -> bytes:
        """The body, at most ``limit`` bytes of it; the rest is not read."""
        return self.read(limit)


@contextmanager
def told(target: Target) -> Iterator[None]:
    """Turns the many ways in which a request fails into AddressFailed with one sentence."""
    try:
        yield
    except TimeoutError as error:
        raise AddressFailed(
            f"{target.shown}: {error if str(error) != 'timed out' else 'no answer'}"
        ) from error
    except ConnectionRefusedError as error:
        raise AddressFailed(f"{target.shown}: nothing listens there (connection refused)") from error
    except ssl.SSLCertVerificationError as error:
        raise AddressFailed(
            f"{target.shown}: its certificate is not valid: {error.verify_message}"
        ) from error
    except http.client.HTTPException as error:
        raise AddressFailed(f"{target.shown}: not a complete HTTP answer ({type(error).__name__})") from error
    except OSError as error:
        raise AddressFailed(f"{target.shown}: {error.strerror or error}") from error


@contextmanager
def open_url(
    url: str,
    *,
    purpose: str,
    deadline: Deadline,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    redirects: int = 0,
    credentials: bool = False,
    authority: str | None = "",
    resolver: Resolver = system_resolver,
) -> Iterator[Response]:
    """Request ``url`` for a purpose ("uri", "callback"); the answer's body is read inside the ``with``.

    ``redirects``: how many are followed (each through the guard again); 0 hands a 3xx answer back as it is.
    ``authority``: certificates (PEM) that vouch for the other side instead of those that the machine trusts;
    None where nothing is shown to it and nothing depends on who it is.
    Raises InvalidInput (a malformed URL), AddressRefused (the guard), AddressFailed (anything else).
    """
    target = parse(url, credentials=credentials)
    authorization = target.authorization
    for _ in range(min(redirects, MAX_REDIRECTS) + 1):
        sent = {"User-Agent": f"gantry/{settings.VERSION}", "Accept": "*/*", "Accept-Encoding": "identity"}
        sent |= {**(headers or {}), "Host": target.authority, "Connection": "close"}
        if authorization:
            sent["Authorization"] = authorization
        with told(target):
            literal = target.literal
            found = [str(literal)] if literal else look_up(resolver, target.host, deadline)
            connection = _Connection(target, permitted(target.host, found, purpose), deadline, authority)
        answer = None
        try:
            with told(target):
                connection.request(method, target.path, body=body, headers=sent)
                answer = connection.getresponse()
            location = answer.getheader("Location")
            if redirects and answer.status in _REDIRECTS and location and method in ("GET", "HEAD"):
                before, target = target, _redirected(target, location)
                if (before.scheme, before.authority) != (target.scheme, target.authority):
                    authorization = None  # credentials are for the host that the client named
                continue
            yield Response(answer, target)
            return
        finally:
            connection.close()
            if answer is not None:
                answer.close()
    raise AddressFailed(f"{parse(url, credentials=True).shown}: more than {redirects} redirects")


def _redirected(target: Target, location: str) -> Target:
    here = f"{target.scheme}://{target.authority}{target.path}"
    try:
        return parse(urljoin(here, location.strip()), credentials=True)
    except (InvalidInput, ValueError) as error:
        raise AddressRefused(f"{target.shown} redirects to a place that is not followed: {error}") from None
