"""One connection to a Swift as one user: swiftclient's calls over a guarded session, the token renewed."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from copy import copy
from typing import Any, TypeVar

from swiftclient.client import HTTPConnection
from swiftclient.exceptions import ClientException

from workers.addresses import Deadline, parse
from workers.addresses.http import Resolver
from workers.addresses.sessions import guarded_session
from workers.storage.swift import errors
from workers.storage.swift.auth import Access, Identity
from workers.storage.ticking import Tick, Ticking
from workers.vocabulary.staging import Store

T = TypeVar("T")
#: Seconds between two looks at a lock that another thread has.
_LOOK_S = 0.2


class Account:
    """What the connections of one storage share: the token, what the guard is told that they are for ("" = an
    operator named the address), and the authorities to trust (PEM, "" = the machine's)."""

    def __init__(self, store: Store, purpose: str = "swift", authority: str = "") -> None:
        self.purpose, self.authority = purpose, authority
        self._identity = Identity(store)
        self._lock = threading.Lock()
        self._access: Access | None = None

    def access(self, connection: Connection, refused: Access | None = None) -> Access:
        """The token; another one than that which was refused, asked for by one of the connections only."""
        while not self._lock.acquire(timeout=_LOOK_S):
            connection.tick()
        try:
            if self._access is None or self._access is refused:
                self._access = None
                self._access = self._identity.access(connection.session)
            return self._access
        finally:
            self._lock.release()


class Connection:
    """``total_s`` bounds everything that is done with it, ``stall_s`` a silence; both in seconds."""

    def __init__(
        self, account: Account, tick: Tick, resolver: Resolver, total_s: float, stall_s: float
    ) -> None:
        self._account = account
        self.tick = Ticking(tick)
        self._resolver = resolver
        self._limits = total_s, stall_s
        self._deadline = Deadline(total_s, stall_s, self.tick)
        self.session = guarded_session(
            purpose=account.purpose,
            deadline=self._deadline,
            resolver=resolver,
            authority=account.authority,
        )
        self._http: Any = None
        self._http_url = ""
        self._server = "Swift"

    def beside(self, tick: Tick) -> Connection:
        """Another one, for another thread, with the same token."""
        return Connection(self._account, tick, self._resolver, math.inf, self._limits[1])

    def close(self) -> None:
        self._http = None
        self.session.close()

    def call(self, function: Callable[..., T], *arguments: Any, what: str, **named: Any) -> T:
        """One of swiftclient's functions; once more with a new token where the token was refused (401)."""
        with self.tick.passing():
            access = self._account.access(self)
            self._server = f"Swift at {parse(access.url).authority}"
            with errors.told(self._server, what):
                try:
                    return function(
                        access.url, access.token, *arguments, http_conn=self._connected(access), **named
                    )
                except ClientException as error:
                    if error.http_status != 401:
                        raise
                access = self._account.access(self, refused=access)
                return function(
                    access.url, access.token, *arguments, http_conn=self._connected(access), **named
                )

    def read(self, function: Callable[[], T], what: str) -> T:
        """Read on in an answer that ``call`` has given."""
        with self.tick.passing(), errors.told(self._server, what):
            return function()

    def server(self) -> str:
        """For messages."""
        return self._server

    def _connected(self, access: Access) -> tuple[Any, Any]:
        """What swiftclient takes for a connection, with our session in it."""
        if self._http is None or self._http_url != access.url:
            connection = HTTPConnection(access.url)
            connection.request_session.close()
            connection.request_session = self.session
            self.session.headers = None  # type: ignore[assignment] # as swiftclient's own has it
            self._http, self._http_url = connection, access.url
        # One for each request: it reads whatever answer it had last. The session below is the same.
        return self._http.parsed_url, copy(self._http)
