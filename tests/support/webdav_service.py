"""wsgidav on cheroot, as a process: python webdav_service.py FOLDER PORT USER PASSWORD [CERTIFICATE KEY]"""

from __future__ import annotations

import sys
from typing import Any


def _main(folder: str, port: str, user: str, password: str, certificate: str = "", key: str = "") -> None:
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
    server: Any = wsgi.Server(("127.0.0.1", int(port)), app, numthreads=10, timeout=600)
    if certificate:
        server.ssl_adapter = BuiltinSSLAdapter(certificate, key)
    server.start()


if __name__ == "__main__":
    sys.path.pop(0)  # this folder has modules with the names of libraries
    _main(*sys.argv[1:])
