"""A receiver of callbacks for the demo: takes what is rightly signed, by Standard Webhooks, and keeps it.

As somebody would write it without a library (docs/callbacks.md). Must not import other parts of the project.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Seconds that a sender's clock may differ.
TOLERANCE_S = 300


class Receiver:
    """Listens on 127.0.0.1 while it is entered."""

    def __init__(self, secret: str) -> None:
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        #: Bodies that came rightly signed, in order; and how many were not.
        self.taken: list[dict[str, Any]] = []
        self.refused = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if receiver.is_right(
                    body,
                    self.headers.get("webhook-id", ""),
                    self.headers.get("webhook-timestamp", ""),
                    self.headers.get("webhook-signature", ""),
                ):
                    receiver.taken.append(json.loads(body))
                    self.send_response(204)
                else:
                    receiver.refused += 1
                    self.send_response(401)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 its name
                """The demo tells what matters."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def is_right(self, body: bytes, message_id: str, timestamp: str, signatures: str) -> bool:
        """Is one of the signatures ours, and the time about now?"""
        if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_S:
            return False
        signed = f"{message_id}.{timestamp}.".encode() + body
        wanted = "v1," + base64.b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).decode()
        return any(hmac.compare_digest(each.encode(), wanted.encode()) for each in signatures.split())

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
