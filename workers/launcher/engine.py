"""One request to a Docker Engine, by the standard library alone: for the guard and for the listener.

An engine is a record {api, path | host, port, tls}: the prefix of its paths ("/v1.41"), and where it listens.
"""

from __future__ import annotations

import http.client
import json
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .control import Record

TIMEOUT = 10.0  # seconds that the engine may be silent


class Unreachable(Exception):
    """The engine does not answer."""


class Refused(Exception):
    """The engine said no: `status` and its words."""

    def __init__(self, status: int, data: bytes) -> None:
        try:
            words = str(json.loads(data)["message"])
        except (ValueError, KeyError, TypeError):
            words = data[:200].decode(errors="replace")
        super().__init__(f"{status} {words}")
        self.status = status
        self.words = words


class Connection(http.client.HTTPConnection):
    def __init__(self, engine: Record) -> None:
        super().__init__("docker", timeout=TIMEOUT)
        self._engine = engine

    def connect(self) -> None:
        if self._engine.get("path"):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(TIMEOUT)
            self.sock.connect(self._engine["path"])
            return
        channel = socket.create_connection((self._engine["host"], self._engine["port"]), TIMEOUT)
        if self._engine.get("tls"):
            import ssl

            folder = self._engine["tls"]
            authority = os.path.join(folder, "ca.pem")
            context = ssl.create_default_context(cafile=authority if os.path.exists(authority) else None)
            # As the worker does it (engine/link.py): Python 3.13 refuses what Docker's instructions make.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if os.path.exists(os.path.join(folder, "cert.pem")):
                context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
            channel = context.wrap_socket(channel, server_hostname=self._engine["host"])
        self.sock = channel


def ask(engine: Record, method: str, path: str, body: Record | None = None) -> bytes:
    """The answer's body. Raises Unreachable, Refused."""
    connection = Connection(engine)
    try:
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, engine["api"] + path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        data = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(str(error) or type(error).__name__) from error
    finally:
        connection.close()
    if response.status >= 400:
        raise Refused(response.status, data)
    return data
