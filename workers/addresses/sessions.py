"""The guard for SDKs that speak through `requests`: a session that connects to checked addresses only.

What `open_url` promises for one request holds for every one of a session: a name is looked up once for each
connection, what was found is checked and then connected to; Host and the TLS name stay those of the URL. No
proxy, netrc or cookie jar of the environment, no redirect is followed, and whatever is waited for (connect,
TLS, send, receive) is waited for in slices, so that a cancel, a stall and a deadline end it. Failures of the
network come out as AddressFailed: urllib3 and requests wrap OSErrors, and nothing else.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from workers.addresses.guard import permitted, unwrapped
from workers.addresses.http import (
    CONNECT_S,
    MAX_ADDRESSES,
    SLICE_S,
    Deadline,
    Resolver,
    look_up,
    system_resolver,
    tls_context,
    told,
)
from workers.addresses.urls import Address, Target, parse
from workers.vocabulary.errors import AddressRefused, InvalidInput

T = TypeVar("T")

#: Bytes that one call hands to the kernel at most: a stall is a time in which none of them is taken.
_MOST_SENT: Final = 256 * 1024


class _Patient(socket.socket):
    """A socket whose waits are cut into slices; whoever sets another timeout is not heard."""

    deadline: Deadline
    target: Target
    #: A request was given up in its middle: what comes next would be taken for the rest of it.
    half_sent = False

    def settimeout(self, value: float | None) -> None:
        super().settimeout(SLICE_S)

    def _patiently(self, what: str, step: Callable[[], T]) -> T:
        quiet_until = time.monotonic() + self.deadline.stall_s
        while True:
            self.deadline.left()
            try:
                return step()
            except TimeoutError:
                if time.monotonic() > quiet_until:
                    raise TimeoutError(f"{what} for {self.deadline.stall_s:g} s") from None

    def recv_into(self, *arguments: Any) -> int:
        with told(self.target):
            return self._patiently("nothing came", lambda: super(_Patient, self).recv_into(*arguments))

    def send(self, data: Any, flags: int = 0) -> int:
        """OSErrors of the connection go through: urllib3 then looks for an answer that came early."""
        try:
            return self._patiently("nothing was taken", lambda: self._taken(data, flags))
        except TimeoutError:
            with told(self.target):
                raise

    def _taken(self, data: Any, flags: int) -> int:
        try:
            return super().send(data, flags)
        except TimeoutError:
            self._give_up_when_answered()
            raise

    def sendall(self, data: Any, flags: int = 0) -> None:
        with memoryview(data) as view, view.cast("B") as octets:
            sent = 0
            while sent < len(octets):
                self._give_up_when_answered()
                sent += self.send(octets[sent : sent + _MOST_SENT], flags)

    def _give_up_when_answered(self) -> None:
        if self._answered():
            self.half_sent = True
            raise BrokenPipeError(errno.EPIPE, "the answer came before the end of the request")

    def _answered(self) -> bool:
        """Has the other side said something (or left) while a request is being sent to it?

        It will not want the rest. Who sends on is cut off by a reset, which may throw the answer away.
        """
        return bool(select_read(self))

    def reach(self, address: Address) -> None:
        """Connect. Raises OSError."""
        self.setblocking(False)
        failed = self.connect_ex((str(address), self.target.port))
        if failed in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            failed = self._connected()
        if failed:
            raise OSError(failed, os.strerror(failed))
        self.settimeout(None)

    def _connected(self) -> int:
        waiting = select.poll()
        waiting.register(self, select.POLLOUT)
        late = time.monotonic() + CONNECT_S
        while not waiting.poll(1000 * min(SLICE_S, self.deadline.left())):
            if time.monotonic() > late:
                return errno.ETIMEDOUT
        return self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def select_read(sock: socket.socket) -> list[tuple[int, int]]:
    """What can be read of it now."""
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    return waiting.poll(0)


class _PatientTls(_Patient, ssl.SSLSocket):
    """The same with TLS."""

    def do_handshake(self, block: bool = False) -> None:
        self._patiently("no TLS handshake", lambda: super(_PatientTls, self).do_handshake())

    def _answered(self) -> bool:
        return False  # what can be read may be tickets of the TLS session


@lru_cache(maxsize=16)
def _context(authority: str) -> ssl.SSLContext:
    context = tls_context(authority)
    context.sslsocket_class = _PatientTls
    return context


class _Way:
    """How the connections of one session get to their servers."""

    def __init__(self, purpose: str, deadline: Deadline, resolver: Resolver, authority: str) -> None:
        self._purpose = purpose
        self._deadline = deadline
        self._resolver = resolver
        self._authority = authority

    def to(self, scheme: str, host: str, port: int | None) -> socket.socket:
        host = host.strip("[]")
        place = f"[{host}]" if ":" in host else host
        try:
            target = parse(f"{scheme}://{place}{f':{port}' if port else ''}/")
        except InvalidInput as error:
            raise AddressRefused(error.message) from None
        with told(target):
            literal = target.literal
            found = [str(literal)] if literal else look_up(self._resolver, target.host, self._deadline)
            sock = self._connected(target, self._permitted(target.host, found))
            return self._secured(sock, target) if scheme == "https" else sock

    def _permitted(self, host: str, found: list[str]) -> list[Address]:
        if not self._purpose:
            return [unwrapped(ip_address(text)) for text in found]
        return permitted(host, found, self._purpose)

    def _connected(self, target: Target, addresses: list[Address]) -> _Patient:
        failure = OSError("it has no address")
        for address in addresses[:MAX_ADDRESSES]:
            family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
            sock = _Patient(family, socket.SOCK_STREAM)
            sock.deadline, sock.target = self._deadline, target
            try:
                sock.reach(address)
            except OSError as error:
                sock.close()
                self._deadline.left()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
        raise failure

    def _secured(self, sock: _Patient, target: Target) -> socket.socket:
        try:
            tls = _context(self._authority).wrap_socket(
                sock, server_hostname=target.host, do_handshake_on_connect=False
            )
        except BaseException:
            sock.close()
            raise
        try:
            tls.deadline, tls.target = self._deadline, target  # type: ignore[attr-defined] # a _PatientTls
            tls.do_handshake()
        except BaseException:
            tls.close()
            raise
        return tls


class _Plain(HTTPConnection):
    way: _Way

    @property
    def is_connected(self) -> bool:
        """May the pool use it for another request?"""
        return not getattr(self.sock, "half_sent", True) and super().is_connected

    def connect(self) -> None:
        self.sock = self.way.to("http", self.host, self.port)


class _Secure(HTTPSConnection):
    way: _Way

    def connect(self) -> None:
        self.sock = self.way.to("https", self.host, self.port)
        self.is_verified = True  # by our own context


class _Adapter(HTTPAdapter):
    """Hands out connections that know the way."""

    def __init__(self, way: _Way) -> None:
        self._way = way
        super().__init__(pool_connections=4, pool_maxsize=4, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **more: Any) -> None:
        plain = type("Plain", (_Plain,), {"way": self._way})
        secure = type("Secure", (_Secure,), {"way": self._way})
        more["blocksize"] = _MOST_SENT  # of a file that is sent
        self.poolmanager = PoolManager(num_pools=connections, maxsize=maxsize, block=block, **more)
        self.poolmanager.pool_classes_by_scheme = {
            "http": type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
        }

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """Path and query as they were written: `requests` takes `a/../b` for `b`, which are two objects."""
        written = getattr(request, "written", None)
        return written or super().request_url(request, proxies)

    def proxy_manager_for(self, *_: Any, **__: Any) -> Any:
        raise AddressRefused("a request by way of a proxy is refused")


class GuardedSession(requests.Session):
    """A session of `requests`; see this module."""

    def __init__(self, way: _Way) -> None:
        super().__init__()
        self.trust_env = False
        adapter = _Adapter(way)
        self.adapters.clear()
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        prepared = super().prepare_request(request)
        url = request.url if isinstance(request.url, str) else ""
        _, _, rest = url.partition("://")
        slash = rest.find("/")
        if slash >= 0 and not request.params and url.isascii() and " " not in url and "#" not in url:
            prepared.written = rest[slash:]  # type: ignore[attr-defined] # read by our own adapter
        return prepared

    def send(self, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        more["allow_redirects"] = False  # tokens and keys are for the host that they were meant for
        more["proxies"] = {}
        answer = super().send(request, **more)
        self.cookies.clear()
        return answer


def guarded_session(
    *,
    purpose: str,
    deadline: Deadline,
    resolver: Resolver = system_resolver,
    authority: str = "",
) -> GuardedSession:
    """A session for addresses of a purpose ("swift", ...), "" = of an operator, who may name any.
    ``deadline`` is for all that it does; inf = none.

    A redirect is handed back as it is. Beside what `requests` raises: AddressRefused, AddressFailed, and
    whatever the deadline's ``tick`` raises. ``authority``: as for ``open_url``.
    """
    return GuardedSession(_Way(purpose, deadline, resolver, authority))
