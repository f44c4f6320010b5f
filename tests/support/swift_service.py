"""A Swift in the environment of tests/support/openstack.txt, which has nothing of the project in it.

python swift_service.py FOLDER OPTIONS    OPTIONS: JSON, see ``Swift`` in swift.py; until its stdin ends

One process for each server (proxy, object, container, account), forked after the slow imports. What memcached
would keep (tempauth's tokens above all) is kept by the proxy's only process: forgotten when it ends, as it is
when memcached does. A line of JSON tells the proxy's ports when all of them answer.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

_SWIFT = """
[swift-hash]
swift_hash_path_prefix = gantry
swift_hash_path_suffix = tests
[storage-policy:0]
name = one
default = yes
"""
_DEFAULT = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = {folder}
devices = {folder}/srv
mount_check = false
user = {user}
log_address = {folder}/none
log_level = ERROR
fallocate_reserve = 0
client_timeout = 60
conn_timeout = 20
node_timeout = 60
container_update_timeout = 60
"""
_STORING = """
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
conn_timeout = 20
node_timeout = 60
container_update_timeout = 60
"""
_PROXY = """
[pipeline:main]
pipeline = catch_errors gatekeeper record cache listing_formats bulk {keystone} {tail}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 20
node_timeout = 60
recheck_account_existence = 0
recheck_container_existence = 0
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
user_test_onlooker = looking
user_other_tester = testing .admin
user_admin_admin = admin .admin .reseller_admin
reseller_prefix = AUTH
token_life = {token_life}
[filter:s3api]
use = egg:swift#s3api
dns_compliant_bucket_names = false
check_bucket_owner = false
s3_acl = false
[filter:short]
use = egg:swift#tempauth
user_test_tester = testing .admin
reseller_prefix = SHORT
auth_prefix = /short/
token_life = {short_life}
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
auth_url = {auth_url}
www_authenticate_uri = {auth_url}
auth_type = password
username = admin
password = {admin_password}
project_name = admin
user_domain_name = Default
project_domain_name = Default
delay_auth_decision = true
cache = swift.cache
token_cache_time = 2
[filter:keystoneauth]
use = egg:swift#keystoneauth
reseller_prefix = KEY
operator_roles = admin, member
[filter:record]
paste.filter_factory = swift_service:record
file = {folder}/requests.log
[filter:cache]
paste.filter_factory = swift_service:cache
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:copy]
use = egg:swift#copy
[filter:quotas]
use = egg:swift#container_quotas
[filter:account_quotas]
use = egg:swift#account_quotas
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""
_TAIL = "short s3api tempauth copy quotas account_quotas slo dlo proxy-server"
_NAMES = ("object", "container", "account")


class _Memory:
    """What Swift asks of its memcached."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, Any]] = {}

    def get(self, key: str, **_: Any) -> Any:
        ends, value = self._kept.get(key, (0.0, None))
        return value if ends == 0 or ends > time.time() else None

    def set(self, key: str, value: Any, time: float = 0, **_: Any) -> None:
        now = importlib.import_module("time").time()
        # As memcached has it: up to 30 days it is a time span. And as JSON makes of it: lists for tuples.
        # Keystone's middleware gives octets.
        ends = 0.0 if not time else float(time) if time > 30 * 86400 else now + time
        self._kept[key] = (ends, value if isinstance(value, bytes) else json.loads(json.dumps(value)))

    def delete(self, key: str, **_: Any) -> None:
        self._kept.pop(key, None)

    def incr(self, key: str, delta: int = 1, time: float = 0, **_: Any) -> int:
        value = int(self.get(key) or 0) + int(delta)
        self.set(key, value, time)
        return value


def cache(_: Any, **__: Any) -> Any:
    """A filter for paste."""
    memory = _Memory()

    def made(app: Any) -> Any:
        def called(env: dict[str, Any], start: Any) -> Any:
            env["swift.cache"] = memory
            return app(env, start)

        return called

    return made


def record(_: Any, file: str, **__: Any) -> Any:
    """A filter that writes down each request: method, path with query, status."""

    def made(app: Any) -> Any:
        def called(env: dict[str, Any], start: Any) -> Any:
            query = env.get("QUERY_STRING")
            line = [env["REQUEST_METHOD"], env["PATH_INFO"].encode("latin-1").decode(), query or ""]

            def told(status: str, *arguments: Any, **named: Any) -> Any:
                with Path(file).open("a") as log:
                    log.write(json.dumps([*line, int(status[:3])]) + "\n")
                return start(status, *arguments, **named)

            return app(env, told)

        return called

    return made


def _prepare(folder: Path, ports: dict[str, int], options: dict[str, Any]) -> None:
    user = importlib.import_module("pwd").getpwuid(os.geteuid()).pw_name
    values = {"folder": folder, "user": user, "keystone": "", "auth_url": "", "admin_password": "", **options}
    values["tail"] = _TAIL
    values["keystone"] = "authtoken keystoneauth" if values["auth_url"] else ""
    (folder / "srv" / "d").mkdir(parents=True, exist_ok=True)
    for name, port in ports.items():
        text = _DEFAULT + (_PROXY if name == "proxy" else _STORING)
        (folder / f"{name}.conf").write_text(text.format(name=name, port=port, **values))
    builder: Any = importlib.import_module("swift.common.ring").RingBuilder
    for name in _NAMES:
        ring = builder(2, 1, 1)
        place = {"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": ports[name], "device": "d"}
        ring.add_dev({**place, "weight": 1.0, "replication_ip": "127.0.0.1", "replication_port": ports[name]})
        ring.rebalance()
        ring.get_ring().save(str(folder / f"{name}.ring.gz"))


def _serve(folder: Path, name: str, listener: socket.socket) -> None:
    wsgi: Any = importlib.import_module("swift.common.wsgi")
    eventlet: Any = importlib.import_module("eventlet")
    eventlet.hubs.use_hub(importlib.import_module("swift.common.utils").get_hub())
    conf, logger, _ = wsgi._initrp(str(folder / f"{name}.conf"), f"{name}-server")
    wsgi.run_server(conf, logger, listener)


def _main(folder: Path, options: dict[str, Any]) -> None:
    sys.modules["swift_service"] = sys.modules["__main__"]
    (folder / "swift.conf").write_text(_SWIFT)
    utils: Any = importlib.import_module("swift.common.utils")
    utils.monkey_patch()
    utils.set_swift_dir(str(folder))
    for module in ("proxy.server", "obj.server", "container.server", "account.server", "common.wsgi"):
        importlib.import_module(f"swift.{module}")
    listeners = {}
    for name in ("proxy", *_NAMES):
        # The same ports again after a restart, else any.
        listeners[name] = socket.create_server(
            ("127.0.0.1", options.get("ports", {}).get(name, 0)), backlog=64
        )
    ports = {name: listener.getsockname()[1] for name, listener in listeners.items()}
    _prepare(folder, ports, options)
    children = []
    for name in listeners:
        child = os.fork()
        if not child:
            os.close(0)
            os.dup2(2, 1)
            for other, listener in listeners.items():
                if other != name:
                    listener.close()
            _serve(folder, name, listeners[name])
            os._exit(1)
        children.append(child)
    for listener in listeners.values():
        listener.close()
    # Who connects waits until everything is loaded.
    print(json.dumps(ports), flush=True)
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), json.loads(sys.argv[2]))
