"""Calls to one S3 server as one user, by boto3 over connections to checked addresses.

Nothing of the environment is read (profiles, proxies, instance metadata), nothing is tried again, and boto3's
loggers, which show headers and bodies, are silent.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import boto3
import urllib3
from botocore import UNSIGNED
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.httpsession import URLLib3Session
from botocore.session import Session
from django.conf import settings
from urllib3.util.connection import create_connection

from workers.addresses.http import CONNECT_S
from workers.storage.trees.base import STALL_S, StorageFailed, Trouble
from workers.storage.trees.guarding import reachable, trusting
from workers.vocabulary.errors import AddressRefused, EngineError, InvalidInput
from workers.vocabulary.transfers.reach import Reach

_BY_CODE: Final = {
    "NoSuchKey": Trouble.MISSING,
    "NoSuchBucket": Trouble.MISSING,
    "NoSuchUpload": Trouble.CHANGED,
    "InvalidPart": Trouble.CHANGED,
    "InvalidPartOrder": Trouble.CHANGED,
    "BadDigest": Trouble.DAMAGED,
    "InvalidDigest": Trouble.DAMAGED,
    "XAmzContentSHA256Mismatch": Trouble.DAMAGED,
    "IncompleteBody": Trouble.AWAY,
    "RequestTimeout": Trouble.AWAY,
    "SlowDown": Trouble.AWAY,
    "OperationAborted": Trouble.AWAY,
    "ConditionalRequestConflict": Trouble.AWAY,
    "EntityTooLarge": Trouble.FULL,
    "QuotaExceeded": Trouble.FULL,
    "KeyTooLongError": Trouble.NAME,
    "InvalidURI": Trouble.NAME,
}
_BY_STATUS: Final = {
    401: Trouble.DENIED,
    403: Trouble.DENIED,
    404: Trouble.MISSING,
    408: Trouble.AWAY,
    409: Trouble.AWAY,
    412: Trouble.CHANGED,
    413: Trouble.FULL,
    423: Trouble.AWAY,
    429: Trouble.AWAY,
    507: Trouble.FULL,
}


class _Sessions(URLLib3Session):  # type: ignore[misc] # botocore has no types
    """botocore's own sender, over connections of ours."""

    def __init__(self, reach: Reach, connections: int) -> None:
        self._trusted = trusting(tuple(reach.cas))
        super().__init__(
            verify=True, proxies={}, timeout=(CONNECT_S, STALL_S), max_pool_connections=connections
        )
        self._manager.pool_classes_by_scheme = _pools(reach.guarded)

    def _get_ssl_context(self) -> Any:
        return self._trusted

    def _setup_ssl_cert(self, conn: Any, url: str, verify: Any) -> None:
        conn.cert_reqs, conn.ca_certs = "CERT_REQUIRED", None


def _pools(guarded: bool) -> dict[str, Any]:
    """Pools of connections that go to checked addresses only."""

    class Checked:
        host: str
        port: int
        timeout: Any
        socket_options: Any

        def _new_conn(self) -> Any:
            failure: Exception = OSError("it has no address")
            try:
                found = reachable(self.host, self.port, guarded=guarded)
                for address in found:
                    try:
                        return create_connection(
                            (address, self.port), CONNECT_S, socket_options=self.socket_options
                        )
                    except OSError as error:
                        failure = error
            except OSError as error:
                failure = error
            raise urllib3.exceptions.NewConnectionError(self, str(failure)) from failure  # type: ignore[arg-type]

    class Plain(Checked, AWSHTTPConnection):  # type: ignore[misc]
        pass

    class Secure(Checked, AWSHTTPSConnection):  # type: ignore[misc]
        pass

    class PlainPool(AWSHTTPConnectionPool):  # type: ignore[misc]
        ConnectionCls = Plain

    class SecurePool(AWSHTTPSConnectionPool):  # type: ignore[misc]
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class Account:
    """One user of one server. ``where`` is its name for people."""

    def __init__(self, reach: Reach, streams: int) -> None:
        silence()
        scheme = reach.options.get("scheme", "https")
        host = f"[{reach.host}]" if ":" in reach.host else reach.host
        url = f"{scheme}://{host}" + (f":{reach.port}" if reach.port else "")
        self.where = reach.shown
        #: Who asks where: what equal ones can see can be copied by the server.
        self.same = (url, reach.credentials)
        user, secret = reach.credentials.username, reach.credentials.password
        nothing = (None, None, os.devnull, None)
        held = Session(
            session_vars={
                "profile": (None, None, None, None),
                "config_file": nothing,
                "credentials_file": nothing,
            }
        )
        with told(self.where, ""):
            self._client: Any = boto3.session.Session(botocore_session=held).client(
                "s3",
                endpoint_url=url,
                aws_access_key_id=user or None,
                aws_secret_access_key=secret or None,
                region_name=reach.options.get("region") or "us-east-1",
                config=Config(
                    signature_version="s3v4" if user else UNSIGNED,
                    s3={"addressing_style": "path"},
                    retries={"total_max_attempts": 1},
                    proxies={},
                    # Newer boto3 adds checksums that older servers do not know; ours are Content-MD5.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    parameter_validation=False,
                    user_agent=f"gantry/{settings.VERSION}",
                ),
            )
            self._sessions = _Sessions(reach, 4 * streams)
        # The one place in which botocore lets somebody else send: a handler that returns an answer.
        self._client.meta.events.register("before-send.s3", self._send)

    def close(self) -> None:
        self._sessions.close()
        self._client.close()

    def _send(self, request: Any, **_: Any) -> Any:
        return self._sessions.send(request)

    def call(self, operation: str, what: str, **given: Any) -> Any:
        """One of boto3's operations. Raises StorageFailed; ``what`` is the path for people."""
        with told(self.where, what):
            return getattr(self._client, operation)(**given)

    def pages(self, what: str, **given: Any) -> Iterator[Any]:
        """The pages of a list of objects, one after the other."""
        while True:
            page = self.call("list_objects_v2", what, **given)
            yield page
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not token:
                return
            given["ContinuationToken"] = token


@contextmanager
def told(where: str, what: str) -> Iterator[None]:
    """Turns whatever boto3 raises into StorageFailed; its messages are not taken over, but for the code."""
    about = f"{where}: {what}" if what else where
    try:
        yield
    except ClientError as error:
        raise _said(about, error) from None
    except ParamValidationError:
        raise StorageFailed(f"{about}: a request cannot carry that", Trouble.OTHER) from None
    except (AddressRefused, InvalidInput) as error:
        raise StorageFailed(f"{about}: {error.message}", Trouble.REFUSED) from None
    except BotoCoreError as error:
        inner = getattr(error, "kwargs", {}).get("error")
        if isinstance(inner, AddressRefused | InvalidInput):
            raise StorageFailed(f"{about}: {inner.message}", Trouble.REFUSED) from None
        if isinstance(inner, EngineError):
            raise StorageFailed(f"{about}: {inner.message}", Trouble.AWAY) from None
        raise StorageFailed(
            f"{about}: the connection failed ({type(error).__name__})", Trouble.AWAY
        ) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise StorageFailed(
            f"{about}: the connection failed ({type(error).__name__})", Trouble.AWAY
        ) from None
    except (ValueError, UnicodeError) as error:
        raise StorageFailed(
            f"{about}: a request cannot carry that ({type(error).__name__})", Trouble.OTHER
        ) from None


def _said(about: str, error: ClientError) -> StorageFailed:
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    code = str(error.response.get("Error", {}).get("Code") or "")
    words = code[:60] if code.isascii() and code.isprintable() else ""
    trouble = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if trouble is None:
        trouble = Trouble.AWAY if status >= 500 and code != "NotImplemented" else Trouble.OTHER
    return StorageFailed(f"{about}: the server said {status} {words}", trouble, status=status)


def _warnings(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def silence() -> None:
    """Keep boto3 from logging requests, whatever level is set for it."""
    for top in ("boto3", "botocore", "s3transfer", "urllib3"):
        below = [name for name in logging.root.manager.loggerDict if name.startswith(f"{top}.")]
        for name in (top, *below):
            logger = logging.getLogger(name)
            if _warnings not in logger.filters:
                logger.addFilter(_warnings)
