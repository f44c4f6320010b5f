"""An API server as Kubernetes documents it, as far as lists of nodes and pods go: no cluster can run here.

Speaks GET /api/v1/nodes and /api/v1/pods with limit, continue and fieldSelector, bearer tokens, Status
objects for 401, 403 and 410 (an old continue token). No page is larger than ``page``.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

TOKEN = "eyJhbGciOiJSUzI1NiJ9.a-token-of-a-service-account.c2lnbmF0dXJl"
_PATHS = {"/api/v1/nodes": "nodes", "/api/v1/pods": "pods"}


class ApiServer:
    """``with ApiServer() as server``: server.node(...), server.pod(...), server.port."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {"nodes": {}, "pods": {}}
        self.token = TOKEN
        #: May the token's account list these?
        self.allowed = {"nodes", "pods"}
        self.page = 500
        self.seen: list[str] = []
        #: So many continue tokens are too old when they are used.
        self.expiring = 0
        self._lists: dict[str, list[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, body = outer._answer(self.path, self.headers.get("Authorization", ""))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class' name
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                pass  # connections are cut on purpose

        self._server = Quiet(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> ApiServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- what there is -------------------------------------------------------------------------------

    def node(
        self,
        name: str,
        *,
        labels: dict[str, str] | None = None,
        ready: str = "True",
        unschedulable: bool = False,
        taints: list[dict[str, str]] | None = None,
        **allocatable: str,
    ) -> None:
        """A node, or what it has become."""
        self.objects["nodes"][name] = node(
            name, allocatable, labels=labels, ready=ready, unschedulable=unschedulable, taints=taints
        )

    def pod(self, name: str, on: str | None, phase: str = "Running", **requests: str) -> None:
        self.objects["pods"][name] = {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                **({"nodeName": on} if on else {}),
                "containers": [{"name": "main", "resources": {"requests": requests}}],
            },
            "status": {"phase": phase},
        }

    # --- the API -------------------------------------------------------------------------------------

    def _answer(self, url: str, authorization: str) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        what = _PATHS.get(parts.path)
        with self._lock:
            self.seen.append(url)
            if authorization != f"Bearer {self.token}":
                return _status(401, "Unauthorized", "Unauthorized")
            if what is None:
                return _status(404, "NotFound", "the server could not find the requested resource")
            if what not in self.allowed:
                said = f'{what} is forbidden: User "system:serviceaccount:x:y" cannot list resource "{what}"'
                return _status(403, "Forbidden", said)
            return self._list(what, query)

    def _list(self, what: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        name, _, start = base64.b64decode(query.get("continue", "")).decode().partition(":")
        if name:
            if self.expiring:
                self.expiring -= 1
                self._lists.pop(name, None)
            if name not in self._lists:
                return _status(410, "Expired", "The provided continue parameter is too old")
            found = self._lists[name]
        else:
            ended = query.get("fieldSelector", "")
            found = [
                each
                for each in self.objects[what].values()
                if f"status.phase!={each['status'].get('phase')}" not in ended.split(",")
            ]
            name = f"{what}-{len(self.seen)}"
            self._lists[name] = found
        first = int(start or 0)
        last = first + min(int(query.get("limit") or len(found) or 1), self.page)
        metadata: dict[str, Any] = {"resourceVersion": "1"}
        if last < len(found):
            metadata["continue"] = base64.b64encode(f"{name}:{last}".encode()).decode()
            metadata["remainingItemCount"] = len(found) - last
        kind = f"{what[:-1].title()}List"
        return 200, {"kind": kind, "apiVersion": "v1", "metadata": metadata, "items": found[first:last]}


def node(
    name: str,
    allocatable: dict[str, str],
    *,
    labels: dict[str, str] | None = None,
    ready: str = "True",
    unschedulable: bool = False,
    taints: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    """A node as the API shows it."""
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            **({"unschedulable": True} if unschedulable else {}),
            **({"taints": taints} if taints else {}),
        },
        "status": {
            "allocatable": allocatable,
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": ready},
            ],
        },
    }


def _status(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    kind = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return code, {**kind, "message": message, "reason": reason, "code": code}


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """For a server on 127.0.0.1: its context, and the PEM that vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a cluster of tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(private + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, pem.decode()
