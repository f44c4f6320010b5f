"""What a Swift, a Keystone or the network between says, as one sentence; never a token, a key or a query.

swiftclient and keystoneauth put headers, bodies and whatever `requests` complained about into their messages
and debug lines: only status and reason are taken from them, and their loggers are silent.
"""

from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import requests
import urllib3
from swiftclient.exceptions import ClientException

from workers.storage.base import StorageFailed, Trouble
from workers.vocabulary.errors import AddressRefused, EngineError, InvalidInput

#: Loggers that show headers, and keys in bodies; with every logger below them.
_TALKATIVE: Final = ("swiftclient", "keystoneauth", "keystoneauth1")
#: These show paths, as far down as they may: others warn by them, too.
_CHATTING: Final = ("urllib3", "requests")

_BY_STATUS: Final = {
    401: Trouble.DENIED,
    403: Trouble.DENIED,
    404: Trouble.MISSING,
    408: Trouble.AWAY,
    409: Trouble.AWAY,  # another request to the object came in between
    412: Trouble.CHANGED,
    413: Trouble.FULL,
    422: Trouble.DAMAGED,  # the checksum that was announced is not that of what arrived
    429: Trouble.AWAY,
    498: Trouble.AWAY,
    499: Trouble.AWAY,
    507: Trouble.FULL,
}


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _warnings(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def silence() -> None:
    """Keep the SDKs from logging, whatever level the process or an operator sets for them."""
    for top, passes in (
        *((name, _nothing) for name in _TALKATIVE),
        *((name, _warnings) for name in _CHATTING),
    ):
        below = [name for name in logging.root.manager.loggerDict if name.startswith(f"{top}.")]
        for name in (top, *below):
            logger = logging.getLogger(name)
            if passes not in logger.filters:
                logger.addFilter(passes)


def trouble_of(status: int) -> Trouble:
    """The kind of trouble that an HTTP status stands for."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Trouble.AWAY if status >= 500 else Trouble.OTHER


def said(server: str, status: int, reason: str, what: str, trouble: Trouble | None = None) -> StorageFailed:
    """ "Swift at host said 404 Not Found: container/object"."""
    words = reason.strip() or http.client.responses.get(status, "")
    words = "".join(char for char in words[:80] if char.isprintable())
    return StorageFailed(
        f"{server} said {status} {words}: {what}", trouble or trouble_of(status), status=status
    )


@contextmanager
def told(server: str, what: str) -> Iterator[None]:
    """Turns whatever a request raises into StorageFailed; what a ``tick`` raises goes through."""
    try:
        yield
    except StorageFailed:
        raise
    except (AddressRefused, InvalidInput) as error:
        raise StorageFailed(f"{server}: {error.message}", Trouble.REFUSED) from None
    except EngineError as error:
        raise StorageFailed(f"{error.message}: {what}", Trouble.AWAY) from None
    except ClientException as error:
        raise _client_said(server, what, error) from None
    except (requests.exceptions.InvalidHeader, UnicodeEncodeError):
        raise StorageFailed(
            f"{server}: a name or a key has a character in it that a request cannot carry: {what}",
            Trouble.OTHER,
        ) from None
    except (
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        OSError,
    ) as error:
        raise StorageFailed(
            f"{server}: the connection broke ({type(error).__name__}): {what}", Trouble.AWAY
        ) from None


def _client_said(server: str, what: str, error: ClientException) -> StorageFailed:
    if not error.http_status:
        return StorageFailed(f"{server} gave an answer that is not Swift's: {what}", Trouble.OTHER)
    return said(server, error.http_status, error.http_reason or "", what)
