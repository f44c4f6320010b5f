"""A TCP port in front of a real server, with the faults of a network: cut, frozen, slow, a lost reply, a bit.

The server behind it may listen on a unix socket. Threads, no asyncio: two per connection, a handful of
connections per test. Must not import the project.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

Upstream = str | tuple[str, int]
_PIECE = 1 << 16


class Proxy:
    """``with Proxy(upstream) as proxy``: connect to ``127.0.0.1:proxy.port``; faults come and go."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._open = threading.Event()
        self._flowing = threading.Event()
        self._open.set()
        self._flowing.set()
        self._delay_s = 0.0
        #: Connections at once; those beyond are refused. None: as many as come.
        self.most: int | None = None
        self._drop_after: tuple[bytes | re.Pattern[bytes], bytes] | None = None
        self._flips: dict[bool, int] = {}
        self._freeze_after: int | None = None
        #: Set when the reply asked for by ``drop_reply`` has been thrown away.
        self.dropped = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.cut()
        self._flowing.set()

    def cut(self) -> None:
        """End every connection and every new one, until ``mend``."""
        self._open.clear()
        with self._lock:
            victims = list(self._sockets)
        for victim in victims:
            _reset(victim)

    def mend(self) -> None:
        self._open.set()

    def freeze(self) -> None:
        """No byte passes, in no direction; connections stay open and new ones hang, until ``thaw``."""
        self._flowing.clear()

    def freeze_after(self, count: int) -> None:
        """``freeze`` when so many bytes more have passed to the server."""
        self._freeze_after = count

    def thaw(self) -> None:
        self._freeze_after = None
        self._flowing.set()

    def delay(self, seconds: float) -> None:
        """Every piece of a reply comes that much later."""
        self._delay_s = seconds

    def drop_reply(self, after: bytes | re.Pattern[bytes], then: bytes) -> None:
        """Once: on a connection that has sent ``after``, deliver the next message with ``then`` and cut the
        connection instead of handing its reply back. The client cannot know whether it was carried out."""
        self.dropped.clear()
        self._drop_after = (after, then)

    def flip(self, after: int, *, outward: bool) -> None:
        """Once: turn one bit over when ``after`` bytes more have passed to the server, or (not ``outward``)
        from it, counted over all connections. A head of an answer or request is some 300 to 800 bytes."""
        self._flips[outward] = after

    @property
    def flipped(self) -> bool:
        """Every bit that was to be turned over has been."""
        return not self._flips

    # --- the wires -----------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._open.is_set() or (self.most is not None and len(self._sockets) >= 2 * self.most):
                _reset(client)
                continue
            try:
                server = _connect(self._upstream)
            except OSError:
                _reset(client)
                continue
            with self._lock:
                self._sockets |= {client, server}
            if not self._open.is_set():  # cut meanwhile
                self.cut()
            muted = threading.Event()
            for source, target, outward in ((client, server, True), (server, client, False)):
                arguments = (source, target, outward, muted)
                threading.Thread(target=self._pump, args=arguments, name="proxy", daemon=True).start()

    def _pump(
        self, source: socket.socket, target: socket.socket, outward: bool, muted: threading.Event
    ) -> None:
        armed = False
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                if outward and self._freeze_after is not None:
                    self._freeze_after -= len(data)
                    if self._freeze_after < 0:
                        self.freeze()
                self._flowing.wait()
                if outward:
                    armed = self._listen_for(data, armed, muted)
                else:
                    if muted.is_set():
                        self.dropped.set()
                        break
                    if self._delay_s:
                        time.sleep(self._delay_s)  # pace: a slow network
                target.sendall(self.passed_on(data, outward))
        self.ended(source, target)

    def ended(self, source: socket.socket, target: socket.socket) -> None:
        """One side has said all, or is gone."""
        with self._lock:
            self._sockets -= {source, target}
        _reset(source)
        _reset(target)

    def passed_on(self, data: bytes, outward: bool) -> bytes:
        """What the other side gets of it."""
        with self._lock:
            after = self._flips.get(outward)
            if after is None:
                return data
            if after >= len(data):
                self._flips[outward] = after - len(data)
                return data
            del self._flips[outward]
        return data[:after] + bytes([data[after] ^ 1]) + data[after + 1 :]

    def _listen_for(self, data: bytes, armed: bool, muted: threading.Event) -> bool:
        """Has this connection sent what ``drop_reply`` waits for? Mutes its server at the second mark."""
        wanted = self._drop_after
        if wanted is None:
            return armed
        # Without a second mark it is the reply to the first: clients may send their request in one piece.
        if (armed and wanted[1] in data) or (not wanted[1] and _is_in(wanted[0], data)):
            with self._lock:
                mine, self._drop_after = self._drop_after is wanted, None
            if mine:
                muted.set()
        return armed or _is_in(wanted[0], data)


def _is_in(mark: bytes | re.Pattern[bytes], data: bytes) -> bool:
    return mark in data if isinstance(mark, bytes) else mark.search(data) is not None


def _connect(upstream: Upstream) -> socket.socket:
    if isinstance(upstream, tuple):
        made = socket.create_connection(upstream, timeout=20)
        made.settimeout(None)  # that was for connecting: a server may think for as long as it likes
        return made
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.connect(upstream)
    except OSError:
        server.close()
        raise
    return server


def _reset(victim: socket.socket) -> None:
    """Close now: whatever was on its way is lost, who waits in recv is woken."""
    with contextlib.suppress(OSError):
        if victim.family == socket.AF_INET:
            victim.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        victim.shutdown(socket.SHUT_RDWR)
    victim.close()


def upstream_of(url: str) -> Upstream:
    """Where the server of a DATABASE_URL or REDIS_URL listens: (host, port) or the path of a unix socket."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path
    host = unquote(parts.netloc.rpartition("@")[2].partition(":")[0])
    if host.startswith("/"):
        return f"{host}/.s.PGSQL.5432"
    assert parts.port, f"no port in {url}"
    return parts.hostname or "", parts.port


def url_through(url: str, proxy: Proxy) -> str:
    """The same URL, by way of the proxy."""
    return url_at(url, proxy.port)


def url_at(url: str, port: int) -> str:
    """The same URL at a port of this machine."""
    parts = urlsplit(url)
    account = parts.netloc.rpartition("@")[0]
    if parts.scheme == "unix":
        return f"redis://{account}@127.0.0.1:{port}/0"
    return parts._replace(netloc=f"{account}@127.0.0.1:{port}").geturl()
