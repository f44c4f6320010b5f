"""wsgidav on cheroot, as a process.

python webdav_service.py FOLDER PORT USER PASSWORD CLOSED [CERTIFICATE KEY]

What lies below the path in the file CLOSED, as long as there is such a file, is forbidden (403).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def _guarded(app: Any, closed: Path) -> Any:
    def called(env: dict[str, Any], start: Any) -> Any:
        asked = env["PATH_INFO"].encode("latin-1")
        if closed.exists() and (asked + b"/").startswith(closed.read_bytes() + b"/"):
            start("403 Forbidden", [("Content-Length", "0")])
            return []
        return app(env, start)

    return called


def _main(
    folder: str, port: str, user: str, password: str, closed: str, certificate: str = "", key: str = ""
) -> None:
    from cheroot import wsgi
    from cheroot.ssl.builtin import BuiltinSSLAdapter
    from wsgidav.fs_dav_provider import FilesystemProvider
    from wsgidav.wsgidav_app import WsgiDAVApp

    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": FilesystemProvider(folder)},
            "simple_dc": {"user_mapping": {"*": {user: {"password": password}}}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "verbose": 1,
        }
    )
    server: Any = wsgi.Server(
        ("127.0.0.1", int(port)), _guarded(app, Path(closed)), numthreads=10, timeout=600
    )
    if certificate:
        server.ssl_adapter = BuiltinSSLAdapter(certificate, key)
    server.start()


if __name__ == "__main__":
    sys.path.pop(0)  # this folder has modules with the names of libraries
    _main(*sys.argv[1:])
