"""Keystone and Placement as they come from PyPI, with SQLite on loopback, filled through their own APIs.

They (and Swift: swift.py) live in an environment of their own, tests/support/openstack.txt, made once for
this machine and account below the folder for temporary files, with databases that are ready to be copied.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.openstack_service import PASSWORD
from tests.support.proxy import Proxy
from tests.support.waiting import limit, wait_until

_HERE = Path(__file__).parent
_LOCK = _HERE / "openstack.txt"
_SERVICE = _HERE / "openstack_service.py"
_PYTHON_FLAGS = ("-P", "-W", "ignore")  # -P: the folder of the scripts has an http.py
_VERSION = "placement 1.38"
REGION = "RegionOne"

logging.getLogger("httpx").setLevel(logging.WARNING)


def installed() -> Path:
    """The folder with the environment (``venv``) and the databases (``new``); made where it is missing."""
    digest = hashlib.sha256(
        _LOCK.read_bytes() + _SERVICE.read_bytes() + sys.base_prefix.encode() + sys.version.encode()
    ).hexdigest()[:16]
    root = Path(tempfile.gettempdir()) / f"gantry-openstack-{os.geteuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    assert root.lstat().st_uid == os.geteuid(), f"{root} belongs to somebody else"
    folder = root / digest
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the tests may be making it
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder)
            (folder / "ready").touch()
    return folder


def _install(folder: Path) -> None:
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=limit(300))
    arguments = ["--quiet", "--require-hashes", "-r", str(_LOCK)]
    uv = Path(sys.executable).parent / "uv"
    if uv.exists():
        command = [str(uv), "pip", "install", "--python", str(venv / "bin" / "python"), *arguments]
    else:
        command = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install"]
        command += arguments
    subprocess.run(command, check=True, timeout=limit(600))
    (folder / "new").mkdir()
    _run(folder, "prepare", str(folder / "new"))


def _run(folder: Path, *words: str) -> None:
    command = _command(folder, *words)
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit(300))
    assert done.returncode == 0, f"openstack_service {words[0]}: {done.stderr[-3000:]}"


def _command(folder: Path, *words: str) -> list[str]:
    return [*python(folder), str(_SERVICE), *words]


def python(folder: Path) -> list[str]:
    """How a script of this folder is run in the environment that is ``installed``."""
    return [str(folder / "venv" / "bin" / "python"), *_PYTHON_FLAGS]


class Cloud:
    """Both services on ports of their own; what they serve is reached through ``keystone`` and ``placement``,
    proxies that can break."""

    def __init__(self, folder: Path) -> None:
        self._installed = installed()
        self._folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        shutil.copytree(self._installed / "new", folder)
        keystone = self._start("keystone")
        # What Placement itself asks Keystone does not pass the proxy.
        placement = self._start("placement", f"http://127.0.0.1:{keystone}")
        self.keystone = Proxy(("127.0.0.1", keystone))
        self.placement = Proxy(("127.0.0.1", placement))
        self.keystone.__enter__()
        self.placement.__enter__()
        self.auth_url = f"http://127.0.0.1:{self.keystone.port}/v3"
        self._identity = httpx.Client(
            base_url=f"http://127.0.0.1:{keystone}/v3", trust_env=False, timeout=limit(60)
        )
        self._identity.headers["X-Auth-Token"] = self._token()
        self._api = httpx.Client(base_url=f"http://127.0.0.1:{placement}", trust_env=False, timeout=limit(60))
        self._api.headers["OpenStack-API-Version"] = _VERSION
        self._catalog("identity", f"http://127.0.0.1:{keystone}/v3", "public", "internal")
        self._catalog("placement", f"http://127.0.0.1:{self.placement.port}", "public")
        self.password = f"secret-of-gantry-{uuid.uuid4().hex}"
        self._user("gantry", self.password, "admin")
        self._user("onlooker", self.password, "reader")
        self._api.headers["X-Auth-Token"] = self._token()

    def stop(self) -> None:
        self.keystone.__exit__(None, None, None)
        self.placement.__exit__(None, None, None)
        for process in self._processes:
            process.kill()
            process.wait(limit(60))
            assert process.stdout is not None
            process.stdout.close()
        self._identity.close()
        self._api.close()

    def _start(self, *words: str) -> int:
        with (self._folder / f"{words[0]}.log").open("w") as log:
            process = subprocess.Popen(
                _command(self._installed, words[0], str(self._folder), *words[1:]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._processes.append(process)
        assert process.stdout is not None
        port = process.stdout.readline()
        assert port, (self._folder / f"{words[0]}.log").read_text()[-3000:]
        return int(port)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Placement's process stands still: its port takes connections and nothing comes back."""
        process = self._processes[1]
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process.pid, signal.SIGCONT)

    # --- Keystone ------------------------------------------------------------------------------------

    def options(self, **more: Any) -> dict[str, Any]:
        """What a policy says to reach it; Placement is found in the catalog."""
        return {
            "auth_url": self.auth_url,
            "username": "gantry",
            "user_domain": "Default",
            "project": "admin",
            "project_domain": "Default",
            **more,
        }

    def _token(self) -> str:
        domain = {"name": "Default"}
        user = {"name": "admin", "domain": domain, "password": PASSWORD}
        identity = {"methods": ["password"], "password": {"user": user}}
        scope = {"project": {"name": "admin", "domain": domain}}
        answer = self._identity.post("/auth/tokens", json={"auth": {"identity": identity, "scope": scope}})
        answer.raise_for_status()
        self._project = answer.json()["token"]["project"]["id"]
        return answer.headers["X-Subject-Token"]

    def _catalog(self, kind: str, url: str, *interfaces: str) -> None:
        if self._identity.get(f"/regions/{REGION}").status_code == 404:
            self._made("/regions", region={"id": REGION})
        service = self._made("/services", service={"type": kind, "name": kind})
        for interface in interfaces:
            endpoint = {"service_id": service, "interface": interface, "url": url, "region_id": REGION}
            self._made("/endpoints", endpoint=endpoint)

    def endpoint(self, kind: str, url: str) -> None:
        """A service in the catalog, its public address only, in place of what was there of its kind."""
        known = self._identity.get("/services", params={"type": kind}).raise_for_status().json()
        for old in known["services"]:
            self._identity.delete(f"/services/{old['id']}").raise_for_status()
        self._catalog(kind, url, "public")

    def new_password(self, name: str, password: str) -> None:
        """An administrator gives a user another password: the tokens of the old one are revoked."""
        found = self._identity.get("/users", params={"name": name}).raise_for_status().json()
        body = {"user": {"password": password}}
        self._identity.patch(f"/users/{found['users'][0]['id']}", json=body).raise_for_status()

    def _user(self, name: str, password: str, role: str) -> None:
        user = self._made("/users", user={"name": name, "password": password, "domain_id": "default"})
        (found,) = self._identity.get("/roles", params={"name": role}).raise_for_status().json()["roles"]
        path = f"/projects/{self._project}/users/{user}/roles/{found['id']}"
        self._identity.put(path).raise_for_status()

    def _made(self, path: str, **body: Any) -> str:
        answer = self._identity.post(path, json=body)
        assert answer.status_code == 201, answer.text
        (made,) = answer.json().values()
        return str(made["id"])

    # --- Placement -----------------------------------------------------------------------------------

    def provider(self, name: str, *aggregates: str, **amounts: Any) -> str:
        """A compute host in these aggregates (uuids); returns its uuid."""
        made = self._api.post("/resource_providers", json={"name": name}).raise_for_status().json()
        self.inventories(made["uuid"], **amounts)
        if aggregates:
            self.place(made["uuid"], *aggregates)
        return str(made["uuid"])

    def inventories(self, provider: str, **amounts: Any) -> None:
        """What it has from now on; VCPU=8 or VCPU={"total": 8, "reserved": 1, "allocation_ratio": 4.0}."""
        body = {
            "resource_provider_generation": self._generation(provider),
            "inventories": {
                name: given if isinstance(given, dict) else {"total": given, "max_unit": given}
                for name, given in amounts.items()
            },
        }
        self._checked(self._api.put(f"/resource_providers/{provider}/inventories", json=body))

    def place(self, provider: str, *aggregates: str) -> None:
        body = {"aggregates": aggregates, "resource_provider_generation": self._generation(provider)}
        self._checked(self._api.put(f"/resource_providers/{provider}/aggregates", json=body))

    def disable(self, provider: str) -> None:
        """As Nova does with a compute service that takes nothing new."""
        body = {
            "traits": ["COMPUTE_STATUS_DISABLED"],
            "resource_provider_generation": self._generation(provider),
        }
        self._checked(self._api.put(f"/resource_providers/{provider}/traits", json=body))

    def allocate(self, provider: str, **resources: int) -> str:
        """An instance; returns its consumer's uuid."""
        consumer = str(uuid.uuid4())
        body = {
            "allocations": {provider: {"resources": resources}},
            "project_id": "p",
            "user_id": "u",
            "consumer_generation": None,
            "consumer_type": "INSTANCE",
        }
        self._checked(self._api.put(f"/allocations/{consumer}", json=body))
        return consumer

    def release(self, consumer: str) -> None:
        self._checked(self._api.delete(f"/allocations/{consumer}"))

    def forget(self, provider: str) -> None:
        """A host that is not there any more, with all that runs there."""
        found = self._api.get(f"/resource_providers/{provider}/allocations").raise_for_status().json()
        for consumer in found["allocations"]:
            self.release(consumer)
        self._checked(self._api.delete(f"/resource_providers/{provider}"))

    def clear(self) -> None:
        """Forget every host."""
        for each in self._api.get("/resource_providers").raise_for_status().json()["resource_providers"]:
            self.forget(each["uuid"])

    def _generation(self, provider: str) -> int:
        found = self._api.get(f"/resource_providers/{provider}").raise_for_status().json()
        return int(found["generation"])

    @staticmethod
    def _checked(answer: httpx.Response) -> None:
        assert answer.is_success, answer.text


def started(folder: Path) -> Cloud:
    """A cloud in a new folder that answers."""
    cloud = Cloud(folder)
    wait_until(lambda: cloud._api.get("/resource_providers").is_success, why="Placement answers")
    return cloud
