"""The storage that an address belongs to, by its scheme; its SDK is loaded when it is needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from workers.addresses import system_resolver
from workers.addresses.http import Resolver
from workers.storage.base import Storage, StorageFailed, Trouble
from workers.vocabulary.staging import Store

_SWIFT = "swift://"


def open_storage(
    store: Store | None = None,
    tick: Callable[[], None] = lambda: None,
    *,
    resolver: Resolver = system_resolver,
    total_s: float = math.inf,
) -> Storage:
    """The storage ``store``; without one that of http(s) addresses. The caller closes it.

    ``total_s`` bounds all that is done with it, in seconds: 10 for what happens during a request.
    """
    if store is None:
        from workers.storage.http import HttpStorage

        return HttpStorage(tick, resolver=resolver, total_s=total_s)
    if store.kind == "swift":
        from workers.storage.swift import SwiftStorage

        return SwiftStorage(store, tick, resolver=resolver, total_s=total_s)
    raise StorageFailed(f"there is no storage of the kind {store.kind!r} here", Trouble.OTHER)


def path_of(url: str) -> str:
    """The path in its storage that a URL of an Input or Output names: decoded, or the http(s) URL itself."""
    if not url.startswith(_SWIFT):
        return url
    try:
        return unquote_to_bytes(url.removeprefix(_SWIFT)).decode()
    except UnicodeDecodeError:
        raise StorageFailed(f"{url!r} does not name an object: it is no UTF-8", Trouble.OTHER) from None
