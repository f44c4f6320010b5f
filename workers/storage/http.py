"""Files behind http(s) addresses, for reading: a path is the address itself, with the credentials in it.

The version of a file is its strong ETag, else its date of change. A server that knows no ranges sends
everything once more, and what is there already is passed over. There is no checksum: HTTP promises none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from django.conf import settings

from workers.addresses import (
    AddressFailed,
    Deadline,
    Response,
    Target,
    open_url,
    parse,
    system_resolver,
)
from workers.addresses.http import MAX_REDIRECTS, Resolver
from workers.storage.base import PIECE, Stat, StorageFailed, Trouble, Upload
from workers.storage.ticking import Ticking
from workers.vocabulary.errors import AddressRefused, InvalidInput

STALL_S: Final = 60.0
_MIB: Final = 1024 * 1024
_TROUBLES: Final = {
    401: Trouble.DENIED,
    403: Trouble.DENIED,
    404: Trouble.MISSING,
    408: Trouble.AWAY,
    410: Trouble.MISSING,
    425: Trouble.AWAY,
    429: Trouble.AWAY,
}


class HttpStorage:
    """Keeps ``workers.storage.base.Storage`` as far as it reads."""

    def __init__(
        self,
        tick: Callable[[], None] = lambda: None,
        *,
        resolver: Resolver = system_resolver,
        total_s: float = math.inf,
        stall_s: float = STALL_S,
    ) -> None:
        self._ticking = Ticking(tick)
        self._resolver = resolver
        self._deadline = Deadline(total_s, stall_s, self._ticking)

    def close(self) -> None:
        pass

    def stat(self, path: str) -> Stat:
        target = _target(path)
        with self._ticking.passing(), _told(target), self._asked(path, target, {}) as answer:
            return Stat(
                size=-1 if answer.length is None else answer.length,
                version=_version(answer),
                content_type=answer.headers.get("Content-Type", ""),
            )

    @contextmanager
    def read(self, path: str, *, offset: int = 0, version: str = "") -> Iterator[Iterator[bytes]]:
        target = _target(path)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._ticking.passing(), _told(target), self._asked(path, target, headers) as answer:
            if version and _version(answer) != version:
                raise _changed(target)
            if answer.status == 416:
                yield iter(())  # there is nothing after its end
            elif answer.status == 206:
                yield self._pieces(target, answer, 0)
            else:
                yield self._pieces(target, answer, offset)

    def store(self, path: str, upload: Upload) -> Stat:
        raise _only_read(path)

    def discard(self, path: str, mark_prefix: str) -> None:
        """Nothing is ever left: nothing is stored."""

    def remove(self, path: str) -> None:
        raise _only_read(path)

    # --- parts -------------------------------------------------------------------------------------------

    @contextmanager
    def _asked(self, path: str, target: Target, headers: dict[str, str]) -> Iterator[Response]:
        with open_url(
            path,
            purpose="uri",
            deadline=self._deadline,
            headers=headers,
            redirects=MAX_REDIRECTS,
            credentials=True,
            resolver=self._resolver,
        ) as answer:
            _check(target, answer, headers.get("Range", ""))
            yield answer

    def _pieces(self, target: Target, answer: Response, skip: int) -> Iterator[bytes]:
        come = 0
        most = settings.GANTRY_URI_LIMIT_MB * _MIB
        if answer.length is not None and answer.length > most:
            raise _too_large(target)
        with self._ticking.passing(), _told(target):
            while data := answer.read(PIECE):
                before, come = come, come + len(data)
                if come > most:
                    raise _too_large(target)
                if come > skip:
                    yield data[max(0, skip - before) :]
                self._ticking()
        if answer.length is not None and come < answer.length:
            raise StorageFailed(
                f"uri {target.shown}: the connection ended after {come} of {answer.length} bytes",
                Trouble.AWAY,
            )
        if come < skip:
            raise _changed(target)


def _target(url: str) -> Target:
    try:
        return parse(url, field="uri", credentials=True)
    except InvalidInput as error:
        raise StorageFailed(error.message, Trouble.OTHER) from None


@contextmanager
def _told(target: Target) -> Iterator[None]:
    try:
        yield
    except AddressRefused as error:
        raise StorageFailed(f"uri {target.shown}: {error.message}", Trouble.REFUSED) from None
    except AddressFailed as error:
        raise StorageFailed(f"uri {error.message}", Trouble.AWAY) from None


def _check(target: Target, answer: Response, wanted: str) -> None:
    status = answer.status
    extent = answer.headers.get("Content-Range", "").strip()
    if status == 200:
        return
    if wanted and status == 206:
        if not extent.startswith(f"bytes {wanted.removeprefix('bytes=')}"):
            raise StorageFailed(f"uri {target.shown}: the server sent another part of it", Trouble.OTHER)
        return
    if wanted and status == 416:
        if extent != f"bytes */{wanted.removeprefix('bytes=').removesuffix('-')}":
            raise _changed(target)
        return
    trouble = _TROUBLES.get(status) or (Trouble.AWAY if status >= 500 else Trouble.OTHER)
    raise StorageFailed(
        f"uri {target.shown}: the server answered {status} {answer.reason}: "
        "check that the address is right and can be read with what it carries",
        trouble,
        status=status,
    )


def _version(answer: Response) -> str:
    etag: str = answer.headers.get("ETag", "").strip()
    if etag and not etag.startswith("W/"):
        return etag
    return str(answer.headers.get("Last-Modified", "")).strip()


def _too_large(target: Target) -> StorageFailed:
    return StorageFailed(
        f"uri {target.shown} is larger than {settings.GANTRY_URI_LIMIT_MB} MiB, the limit for one file "
        "(an operator can raise GANTRY_URI_LIMIT_MB)",
        Trouble.FULL,
    )


def _changed(target: Target) -> StorageFailed:
    return StorageFailed(f"uri {target.shown} has changed meanwhile", Trouble.CHANGED)


def _only_read(path: str) -> StorageFailed:
    return StorageFailed(f"{_target(path).shown}: http addresses are for reading only", Trouble.OTHER)
