"""Runs in the environment of Keystone and Placement, which has nothing of the project in it.

python openstack_service.py prepare FOLDER     their databases, keys and first user, once
python openstack_service.py keystone FOLDER    serves on a port of 127.0.0.1 that the first line tells
python openstack_service.py placement FOLDER KEYSTONE_URL
"""

from __future__ import annotations

import base64
import importlib
import os
import sys
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

#: The user admin of project admin, both of domain Default.
PASSWORD = "a long password of the admin"

_KEYSTONE = """
[database]
connection = sqlite:///{folder}/keystone.db
[fernet_tokens]
key_repository = {folder}/fernet
[credential]
key_repository = {folder}/fernet
[identity]
password_hash_rounds = 4
[cache]
enabled = false
"""
_PLACEMENT = """
[placement_database]
connection = sqlite:///{folder}/placement.db
sync_on_startup = {sync}
[api]
auth_strategy = keystone
[keystone_authtoken]
auth_url = {keystone}/v3
www_authenticate_uri = {keystone}/v3
auth_type = password
username = admin
password = {password}
project_name = admin
user_domain_name = Default
project_domain_name = Default
"""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class' name
        pass


def _prepare(folder: Path) -> None:
    """Forks after the slow imports: a second command in one process is more than their options bear."""
    _configure(folder)
    (folder / "fernet").mkdir(mode=0o700)
    for name in "01":
        (folder / "fernet" / name).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
    cli: Any = importlib.import_module("keystone.cmd.cli")
    command = ["keystone-manage", "--config-file", str(folder / "keystone.conf")]
    for words in (["db_sync"], ["bootstrap", "--bootstrap-password", PASSWORD]):
        child = os.fork()
        if not child:
            cli.main([*command, *words])
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit(f"keystone-manage {words[0]} failed")
    _configure(folder, sync="true")
    importlib.import_module("placement.wsgi").init_application()


def _configure(folder: Path, keystone: str = "http://127.0.0.1:1", sync: str = "false") -> None:
    values = {"folder": folder, "keystone": keystone, "password": PASSWORD, "sync": sync}
    (folder / "keystone.conf").write_text(_KEYSTONE.format(**values))
    (folder / "placement.conf").write_text(_PLACEMENT.format(**values))
    os.environ["OS_KEYSTONE_CONFIG_DIR"] = os.environ["OS_PLACEMENT_CONFIG_DIR"] = str(folder)


def _serve(module: str) -> None:
    """Its port is told at once: who connects waits until everything is loaded."""
    nothing: Any = None
    server = make_server("127.0.0.1", 0, nothing, server_class=_Server, handler_class=_Quiet)
    print(server.server_address[1], flush=True)
    os.dup2(2, 1)  # nobody reads on: a service that logs there would hang when the pipe is full
    server.set_app(importlib.import_module(module).application)
    server.serve_forever()


if __name__ == "__main__":
    what, where, *more = sys.argv[1:]
    del sys.argv[1:]  # their options are read from there, too
    if what == "prepare":
        _prepare(Path(where))
    else:
        _configure(Path(where), *more)
        _serve(f"{what}.wsgi.api")
