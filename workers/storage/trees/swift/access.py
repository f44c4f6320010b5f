"""As whom a Swift is spoken to, and the connections that threads borrow."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from workers.addresses import system_resolver
from workers.storage.base import StorageFailed, Trouble
from workers.storage.swift.connection import Account, Connection
from workers.storage.trees.base import STALL_S, clean, shown
from workers.vocabulary.staging import Store
from workers.vocabulary.transfers.reach import Reach

#: Swift's own limit for the name of an object, in bytes; an operator may set another.
NAME_MAX: Final = 1024


def store_of(reach: Reach) -> Store:
    """Options: ``auth_url`` (else made of host, port and ``scheme``), ``auth_version``, ``tenant``,
    ``user_domain``, ``project_domain``. Raises StorageFailed."""
    options, user = reach.options, reach.credentials.username
    tenant = options.get("tenant", "")
    if not tenant and ":" in user:
        tenant, _, user = user.partition(":")
    place = f"[{reach.host}]" if ":" in reach.host else reach.host
    made = f"{options.get('scheme', 'https')}://{place}{f':{reach.port}' if reach.port else ''}"
    return Store(
        auth_url=options.get("auth_url") or made,
        auth_version=options.get("auth_version", ""),
        user=user,
        tenant=tenant,
        user_domain=options.get("user_domain", "Default"),
        project_domain=options.get("project_domain", "Default"),
        key=reach.credentials.password,
    )


class Access:
    """Where the site is, and who goes there."""

    def __init__(self, reach: Reach) -> None:
        self.store = store_of(reach)
        container, _, prefix = clean(reach.path.encode())[1:].decode().partition("/")
        if not container:
            raise StorageFailed(f"{reach.shown}: a path is wanted: container[/prefix]", Trouble.OTHER)
        self.container = container
        self._prefix = f"{prefix}/" if prefix else ""
        self._account = Account(self.store, "site" if reach.guarded else "", "\n".join(reach.cas))
        self._idle: deque[Connection] = deque()

    def name(self, path: bytes) -> str:
        """The object of a path; "" or the prefix for "/". Raises StorageFailed NAME."""
        try:
            name = self._prefix + path[1:].decode()
        except UnicodeDecodeError:
            raise StorageFailed(f"{shown(path)}: Swift holds names in UTF-8 only", Trouble.NAME) from None
        if len(name.encode()) > NAME_MAX:
            raise StorageFailed(f"{shown(path)}: Swift holds {NAME_MAX} bytes of a name", Trouble.NAME)
        return name

    def folder(self, path: bytes) -> str:
        """How names in a folder begin."""
        name = self.name(path)
        return f"{name}/" if path != b"/" else name

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """For one thread, until it is given back."""
        try:
            borrowed = self._idle.pop()
        except IndexError:
            borrowed = self.another(lambda: None)
        try:
            yield borrowed
        finally:
            self._idle.append(borrowed)

    def another(self, tick: Callable[[], None]) -> Connection:
        """One of the caller's own, ended by what ``tick`` raises; the caller closes it."""
        return Connection(self._account, tick, system_resolver, math.inf, STALL_S)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
