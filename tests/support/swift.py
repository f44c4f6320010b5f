"""A Swift of the tests' own: the servers of PyPI's swift as they are, one replica, on loopback.

Accounts ``test`` and ``other`` have a user ``tester`` with the key ``testing``; ``test:onlooker`` (looking)
owns nothing. /short/v1.0 is a second authentication whose tokens live for seconds. With a Keystone
(openstack.py) the same servers take its tokens, too. Two seconds of processor time to start, and one Swift
for each worker of pytest-xdist that needs one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from tests.support.openstack import Cloud, installed, python
from tests.support.openstack_service import PASSWORD
from tests.support.proxy import Proxy
from tests.support.waiting import limit, wait_until
from workers.storage.base import Upload
from workers.storage.swift import SwiftStorage
from workers.vocabulary.staging import Store

_SCRIPT = Path(__file__).with_name("swift_service.py")
KEY = "testing"
#: Seconds that a token of /short/v1.0 is good for.
SHORT_LIFE_S = 2


class Swift:
    """``port`` is the proxy server's own; ``through`` puts a network that can break before it."""

    def __init__(self, folder: Path, *, keystone: str = "", token_life: int = 86400) -> None:
        self.folder = folder
        self._options = {
            "token_life": token_life,
            "short_life": SHORT_LIFE_S,
            "auth_url": keystone,
            "admin_password": PASSWORD,
        }
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[str] | None = None

    @property
    def port(self) -> int:
        return self._ports["proxy"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start its servers, after ``stop`` on the same ports and with what they kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = json.dumps({**self._options, "ports": self._ports})
        log = self.folder / "servers.log"
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [*python(installed()), str(_SCRIPT), str(self.folder), options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, log.read_text()[-3000:]
        self._ports = json.loads(line)
        wait_until(self.answers, why="Swift answers")

    def answers(self) -> bool:
        try:
            return self.ask("GET", "/auth/v1.0", headers=_keys("test:tester", KEY)).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """Kill all of its servers: connections are cut, tokens are forgotten."""
        process, self._process = self._process, None
        if process is None:
            return
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(limit(30))
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()
        # Those of its group die each in its own time.
        wait_until(lambda: not any(map(_listens, self._ports.values())), why="nobody listens any more")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Its processes stand still: connections are taken and nothing comes back."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

    # --- who reaches it, and how -------------------------------------------------------------------------

    def store(self, proxy: Proxy | None = None, *, auth: str = "/auth/v1.0", **other: Any) -> Store:
        """How account test is reached, by way of ``proxy`` if there is one, as is its storage URL."""
        url = f"http://127.0.0.1:{proxy.port if proxy else self.port}{auth}"
        return replace(Store(auth_url=url, user="tester", tenant="test", key=KEY), **other)

    def storage(self, tick: Callable[[], None] = lambda: None, **options: Any) -> SwiftStorage:
        """Account test with Gantry's eyes."""
        return SwiftStorage(self.store(), tick, **{"segment_bytes": 1 << 20, **options})

    @contextmanager
    def through(self) -> Iterator[Proxy]:
        """A proxy in front of it."""
        with Proxy(("127.0.0.1", self.port)) as proxy:
            yield proxy

    # --- what is there, asked without Gantry's code --------------------------------------------------------

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=limit(60)) as client:
            return client.request(method, f"{self.url}{path}", **more)

    def api(
        self, method: str, path: str, *, user: str = "test:tester", key: str = KEY, **more: Any
    ) -> httpx.Response:
        """A request to an account; ``path`` is percent-encoded and begins after the account's."""
        answer = self.ask("GET", "/auth/v1.0", headers=_keys(user, key)).raise_for_status()
        url = f"{answer.headers['X-Storage-Url']}{path}"
        headers = {"X-Auth-Token": answer.headers["X-Auth-Token"], **more.pop("headers", {})}
        with httpx.Client(trust_env=False, timeout=limit(60)) as client:
            return client.request(method, url, headers=headers, **more)

    def container(self) -> str:
        """A new container."""
        name = f"c-{uuid.uuid4().hex[:12]}"
        assert self.api("PUT", f"/{name}").status_code == 201
        return name

    def put(self, path: str, content: bytes, **headers: str) -> None:
        """``path`` is percent-encoded: container/object."""
        answer = self.api("PUT", f"/{path}", content=content, headers=headers)
        assert answer.status_code == 201, answer.text

    def get(self, path: str) -> bytes:
        answer = self.api("GET", f"/{path}")
        assert answer.status_code == 200, answer.text
        return answer.content

    def names(self, container: str) -> list[str]:
        """What a container has; [] when there is no such container."""
        answer = self.api("GET", f"/{container}?format=json")
        return [entry["name"] for entry in answer.json()] if answer.status_code == 200 else []

    def requests(self) -> list[tuple[str, str, str, int]]:
        """All that the proxy server has answered: method, decoded path, query, status."""
        file = self.folder / "requests.log"
        return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(limit(5))
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _keys(user: str, key: str) -> dict[str, str]:
    return {"X-Auth-User": user, "X-Auth-Key": key}


def upload_of(file: Path, mark: str = "run-1", **more: Any) -> Upload:
    """The file, open (until the process ends: tests are short)."""
    return Upload(file=os.open(file, os.O_RDONLY), size=file.stat().st_size, mark=mark, **more)


def started(folder: Path, **options: Any) -> Swift:
    """A running Swift in a new folder."""
    swift = Swift(folder, **options)
    try:
        swift.start()
    except BaseException:
        swift.stop()
        raise
    return swift


def removed(swift: Swift) -> None:
    """Ended, with all that it kept."""
    swift.stop()
    shutil.rmtree(swift.folder, ignore_errors=True)


def in_catalog(cloud: Cloud, swift: Swift) -> None:
    """Keystone's catalog says where the Swift is."""
    cloud.endpoint("object-store", f"{swift.url}/v1/KEY_$(project_id)s")
