"""The calls of Keystone's Identity API v2.0, as a small HTTP server: no Keystone serves them any more.

It was removed in 2018 (the Queens release), but older clouds still speak it. Source: "Authenticate" and
"List versions" of https://docs.openstack.org/api-ref/identity/v2/. The tokens are a real Swift's, so that
whoever has one is let in there.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.support.swift import KEY, Swift


class KeystoneV2:
    """``with KeystoneV2(swift) as keystone``: user ``tester`` of tenant ``test`` with the key ``testing``."""

    def __init__(self, swift: Swift) -> None:
        self._swift = swift
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                version = {"id": "v2.0", "status": "deprecated", "links": []}
                if self.path == "/":
                    self._answer(300, {"versions": {"values": [version]}})
                else:
                    self._answer(404, {"error": {"code": 404, "title": "Not Found"}})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/v2.0/tokens":
                    self._answer(404, {"error": {"code": 404, "title": "Not Found"}})
                elif outer.known(body):
                    self._answer(200, outer.access())
                else:
                    self._answer(401, {"error": {"code": 401, "title": "Unauthorized", "message": "no"}})

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class' name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="keystone-v2", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def known(self, body: dict[str, Any]) -> bool:
        """Is it a request for a token that is scoped to the tenant, with the right password?"""
        self.asked += 1
        credentials = {"username": "tester", "password": KEY}
        return body == {"auth": {"passwordCredentials": credentials, "tenantName": "test"}}

    def access(self) -> dict[str, Any]:
        """The answer with token and catalog."""
        keys = {"X-Auth-User": "test:tester", "X-Auth-Key": KEY}
        token = self._swift.ask("GET", "/auth/v1.0", headers=keys).headers
        tenant = {"id": "t1", "name": "test", "enabled": True, "description": ""}
        places = dict.fromkeys(("publicURL", "internalURL", "adminURL"), token["X-Storage-Url"])
        return {
            "access": {
                "token": {
                    "id": token["X-Auth-Token"],
                    "issued_at": "2026-01-01T00:00:00Z",
                    "expires": "2036-01-01T00:00:00Z",
                    "tenant": tenant,
                },
                "user": {"id": "u1", "name": "tester", "username": "tester", "roles": [{"name": "member"}]},
                "serviceCatalog": [
                    {
                        "type": "compute",
                        "name": "nova",
                        "endpoints": [{"region": "R", "publicURL": "http://[::1"}],
                    },
                    {"type": "object-store", "name": "swift", "endpoints": [{"region": "R", **places}]},
                ],
                "metadata": {"is_admin": 0, "roles": ["r1"]},
            }
        }
