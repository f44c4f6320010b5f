"""The deployment of docker-compose.yml, really built and brought up on an engine of the test's own.

Base images are stand-ins made of this machine's programs (tests.support.standins). One test, because bringing
it up is what takes time: submit, kill, callback, a worker's container replaced, Postgres and Redis restarted,
all down and up again.
"""

from __future__ import annotations

import json
import re
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.support import images, standins
from tests.support.containers import containers_of
from tests.support.deployment import Deployment
from tests.support.engines import Engine
from tests.support.outside import ADDRESS, METADATA, listener, outside
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("compose")]

_RUNNING, _FINISHED, _FAILED, _LOST, _KILLED = 1, 2, 3, 4, 6
_BUSYBOX = {"type": "DOCKER", "docker": {"image": images.BUSYBOX, "forcePullImage": False}}
_SERVICES = ("api", "worker", "network", "callbacks", "flower", "postgres", "redis")
#: Of something that listens beside the engine, and beyond it.
_PORT = 7321
#: What a container reaches: a machine of the world, its own node, a cloud's metadata.
_LOOK_AROUND = f"""
for address in {ADDRESS} 198.51.100.1 {METADATA}; do
    echo "$address $(nc -w 10 $address {_PORT} 2>/dev/null || echo no)"
done
"""


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    folder = Path(tempfile.mkdtemp(prefix="gdc-", dir="/tmp"))
    folder.chmod(0o711)
    engine = Engine(folder / "engine", "compose")
    project = folder / "gantry"
    project.mkdir(mode=0o755)
    try:
        engine.start()
        images.load(engine)
        standins.load(engine)
        yield Deployment(engine, project)
    finally:
        engine.stop()
        subprocess.run(["rm", "-rf", str(folder)], check=False)


def _ready_nodes(deployment: Deployment) -> int:
    status, body = deployment.call("GET", "/readyz")
    return int(body["nodes"]["ready"]) if status == 200 else 0


def _submit(deployment: Deployment, command: str | None, **more: Any) -> int:
    """``command`` None: a container task, said by ``more``."""
    status, body = deployment.call("POST", "/v1/tasks", {"taskName": "smoke", "commands": command, **more})
    assert status == 200, body
    return int(body["data"]["taskId"])


def _task(deployment: Deployment, task_id: int) -> dict[str, Any]:
    """The task, or {} while the API does not answer."""
    status, body = deployment.call("GET", f"/v1/tasks?taskIds={task_id}")
    return dict(body["data"][0]) if status == 200 and body["data"] else {}


def _wait(deployment: Deployment, task_id: int, wanted: int, timeout_s: float = 150.0) -> dict[str, Any]:
    """Wait until the task has this status; fails at once when it has ended with another."""

    def reached() -> dict[str, Any] | None:
        found = _task(deployment, task_id)
        status = found.get("taskStatus", -1)
        assert status <= 1 or status == wanted, f"{found}\n{deployment.logs()}"
        return found if status == wanted else None

    found: dict[str, Any] = wait_until(reached, timeout_s, 0.2, f"task {task_id} becomes {wanted}")
    return found


def _reasons(deployment: Deployment, task_id: int) -> str:
    """Why the task waits, or "" while the API does not answer."""
    status, body = deployment.call("GET", f"/v1/tasks/{task_id}/explain")
    return str(body["data"]["reasons"]) if status == 200 else ""


def _log(deployment: Deployment, task_id: int) -> str:
    status, text = deployment.call("GET", f"/v1/tasks/{task_id}/logs")
    assert status == 200, text
    return str(text)


@contextmanager
def _receiver(deployment: Deployment, secret: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A receiver on the engine's side of the network, which takes what is signed with the secret and nothing
    else: (its URL for containers, what it has taken)."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            got.append(Webhook(secret).verify(body, headers))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 its name
            """Says nothing."""

    out = deployment.engine.client.networks.get(f"{deployment.name}_out").attrs
    gateway = out["IPAM"]["Config"][0]["Gateway"]
    listener = deployment.engine.listen(0, gateway)
    server = HTTPServer(("", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{gateway}:{listener.getsockname()[1]}/hook", got
    finally:
        server.shutdown()
        server.server_close()


def test_the_deployment_that_one_would_really_run(deployment: Deployment) -> None:
    """Catches an image that does not build or start, a service that does not find another, a secret in the
    open, data that a restart loses, and a worker's replacement that loses or repeats work."""
    deployment.prepare(
        GANTRY_HEARTBEAT_S="1",
        GANTRY_GRACE_S="2",
        GANTRY_NODE_CPUS="8",
        GANTRY_NODE_MEM_MB="8192",
        GANTRY_CALLBACK_ALLOW_NETWORKS="172.16.0.0/12,192.168.0.0/16",
    )
    deployment.compose("build", "api", "worker", timeout_s=400)
    deployment.compose("up", "-d")
    wait_until(lambda: _ready_nodes(deployment) == 1, 180, 0.3, "the API is ready and has heard the node")
    _assert_nothing_is_in_the_open(deployment)

    hello = _submit(deployment, "echo hello; id -u")
    _wait(deployment, hello, _FINISHED)
    said, uid = _log(deployment, hello).split()
    assert said == "hello"
    assert int(uid) >= 200_000, "each command has a user of its own"
    curious = _submit(
        deployment, "cat /run/secrets/* /proc/1/environ; ls /var/run/docker.sock && exit 7; exit 3"
    )
    assert _wait(deployment, curious, _FAILED)["message"] == "Command exited with status 7"
    for name in ("database_url", "secret_keys", "redis_url"):
        assert deployment.secret(name) not in _log(deployment, curious)

    doomed = _submit(deployment, "sleep 600 & sleep 600")
    _wait(deployment, doomed, _RUNNING)
    status, body = deployment.call("POST", f"/v1/tasks/kill?taskId={doomed}")
    assert (status, body["data"]["submitKill"]) == (200, True)
    _wait(deployment, doomed, _KILLED)

    _call_back(deployment)
    _keep_containers_from_the_node(deployment)
    _replace_the_worker(deployment)

    # A command goes on while the database is away, and its end is recorded.
    during = _submit(deployment, "sleep 20; echo through")
    _wait(deployment, during, _RUNNING)
    deployment.compose("restart", "postgres")
    _wait(deployment, during, _FINISHED)
    assert _log(deployment, during) == "through\n"
    deployment.compose("restart", "redis")
    _wait(deployment, _submit(deployment, "true"), _FINISHED)

    deployment.wait_healthy(*_SERVICES)
    token = _another_tenant(deployment)
    status, body = deployment.call("POST", "/v1/tasks", {"taskName": "lab", "commands": "echo lab"}, token)
    assert status == 200, body
    foreign = f"/v1/tasks/{body['data']['taskId']}"
    told = deployment.call("GET", f"{foreign}/explain", token=token)[1]["data"]["reasons"]
    assert "deploy/compose-isolation.yml" in next(
        item["remedy"] for item in told if item["code"] == "not_isolated"
    )

    deployment.compose("down")
    assert not deployment.engine.containers(**{"com.docker.compose.project": deployment.name})
    deployment.compose("-f", "docker-compose.yml", "-f", "deploy/compose-isolation.yml", "up", "-d")
    wait_until(lambda: deployment.call("GET", "/healthz")[0] == 200, 150, 0.3, "the API answers again")
    assert _task(deployment, hello)["taskStatus"] == _FINISHED
    assert _log(deployment, hello).startswith("hello\n")
    again = _submit(deployment, "true")
    assert again > during
    _wait(deployment, again, _FINISHED)
    # With namespaces other tenants' commands run as well.
    wait_until(
        lambda: deployment.call("GET", f"{foreign}/logs", token=token) == (200, "lab\n"),
        90,
        0.3,
        "another tenant's command has run",
        see=lambda: deployment.call("GET", f"{foreign}/explain", token=token),
    )


def _another_tenant(deployment: Deployment) -> str:
    """A token of one that is not the installation's own, made as operations.md says."""
    manage = ("exec", "-T", "api", "gantry", "manage")
    deployment.compose(*manage, "create_tenant", "lab")
    deployment.compose(*manage, "create_user", "ann", "--tenant", "lab")
    made = re.search(r"gnt_[\w-]+", deployment.compose(*manage, "create_token", "ann"))
    assert made is not None
    return made.group()


def _call_back(deployment: Deployment) -> None:
    """A callback leaves the deployment, rightly signed; its log URL opens without a token."""
    status, made = deployment.call("POST", "/api/v1/callbacks/secrets", {})
    assert status == 201, made
    with _receiver(deployment, made["secret"]) as (url, got):
        told = _submit(deployment, "echo told", callbackUrl=url)
        wait_until(
            lambda: len(got) == 2, 120, why="two callbacks come", see=lambda: f"{got}\n{deployment.logs()}"
        )
    assert [(each["taskId"], each["result"]) for each in got] == [(told, "RUNNING"), (told, "FINISHED")]
    log = got[1]["logs"][0]
    assert log.startswith("https://gantry.example/v1/tasks/")
    assert deployment.call("GET", log.removeprefix("https://gantry.example"), token="none") == (200, "told\n")


def _keep_containers_from_the_node(deployment: Deployment) -> None:
    """Containers reach the world, but not the machine that carries the deployment, nor metadata."""
    here = deployment.engine.enter("--net")
    with outside(deployment.engine) as there, listener(here, _PORT), listener(there, _PORT):
        looks = _submit(deployment, None, container=_BUSYBOX, args=["sh", "-c", _LOOK_AROUND])
        _wait(deployment, looks, _FINISHED)
    assert _log(deployment, looks).splitlines() == [
        f"{ADDRESS} reached",
        "198.51.100.1 no",
        f"{METADATA} no",
    ]
    # Without its guard the worker takes no more containers, and says why; with it again they run.
    deployment.compose("stop", "network")
    waits = _submit(deployment, None, container=_BUSYBOX, args=["true"])
    wait_until(
        lambda: "network" in _reasons(deployment, waits),
        120,
        why="it is said that nobody guards the network",
    )
    deployment.compose("start", "network")
    _wait(deployment, waits, _FINISHED)


def _replace_the_worker(deployment: Deployment) -> None:
    """As docs/operations.md says: containers outlive the container of their worker, commands do not."""
    lost = _submit(deployment, "echo begun; sleep 600")
    retried = _submit(deployment, 'case "$HOME" in *-1) sleep 600;; esac; echo again', retry=1)
    kept = _submit(
        deployment,
        None,
        container=_BUSYBOX,
        args=["sh", "-c", "echo one; until test -e /tmp/go; do sleep 1; done; echo two"],
    )
    for task_id in (lost, retried, kept):
        _wait(deployment, task_id, _RUNNING)
    before = deployment.container("worker")["Id"]
    deployment.compose("up", "-d", "--no-deps", "--force-recreate", "worker")
    assert deployment.container("worker")["Id"] != before
    assert "gone" in _wait(deployment, lost, _LOST)["message"]
    assert _log(deployment, lost) == "begun\n", "what it had written is kept"
    _wait(deployment, retried, _FINISHED)
    assert _log(deployment, retried) == "again\n"
    api, (box,) = deployment.engine.client.api, containers_of(deployment.engine, kept)
    api.exec_start(api.exec_create(box["Id"], ["touch", "/tmp/go"])["Id"])
    _wait(deployment, kept, _FINISHED)
    assert _log(deployment, kept) == "one\ntwo\n"
    _, runs = deployment.call("GET", f"/api/v1/runs/{kept}")
    assert runs["attempt"] == 1, "the container was taken over, not started again"


def _assert_nothing_is_in_the_open(deployment: Deployment) -> None:
    """Users, privileges, networks, ports, and no secret where it can be read."""
    secrets = [path.read_text().strip() for path in (deployment.folder / "deploy/secrets").iterdir()]
    assert len(secrets) == 9
    for path in (deployment.folder / "deploy/secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
    for service in (*_SERVICES, "migrate"):
        found = deployment.container(service)
        text = json.dumps(found)
        assert not [secret for secret in secrets if secret in text], (
            f"{service}: a secret is in docker inspect"
        )
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert not host["Privileged"], service
        assert host["LogConfig"]["Config"] == {"max-size": "20m", "max-file": "5"}, service
        assert host["Memory"] > 0, service
        assert bool(host["PortBindings"]) == (service == "api"), service
        if service == "network":
            assert not any("secrets" in mount["Destination"] for mount in found["Mounts"])
            assert host["CapAdd"] == ["NET_ADMIN", "NET_RAW"]
        else:
            assert host["NetworkMode"] != "host", service
        if service in ("api", "migrate", "callbacks", "flower"):
            assert found["Config"]["User"] == "10001:10001", service
            assert not host["CapAdd"], service
            assert not any("docker.sock" in mount["Source"] for mount in found["Mounts"]), service
    inspected = deployment.engine.client.networks.get(f"{deployment.name}_backend").attrs
    assert inspected["Internal"], "Postgres, Redis and Flower have no way out and none in"
    for service in ("postgres", "redis", "flower"):
        networks = deployment.container(service)["NetworkSettings"]["Networks"]
        assert list(networks) == [f"{deployment.name}_backend"], service
    logs = deployment.logs()
    assert not [secret for secret in secrets if secret in logs], "a secret is in a log"
    listed = "import os; print(*os.listdir(), *(f'deploy/{name}' for name in os.listdir('deploy')))"
    inside = deployment.compose("exec", "-T", "api", "python", "-c", listed).split()
    for name in ("tests", ".git", ".env", "deploy/secrets", "deploy/gantry.env", "deploy/wheelhouse", "docs"):
        assert name not in inside, "what an image must not hold"
    assert "manage.py" in inside
    flower = deployment.compose("exec", "-T", "flower", "python", "-c", _ASK_FLOWER)
    assert flower.split() == ["401"], "Flower wants its password"


_ASK_FLOWER = """
import urllib.error, urllib.request
try:
    print(urllib.request.urlopen("http://127.0.0.1:5555/workers", timeout=60).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def test_without_passwords_nothing_starts(tmp_path: Path) -> None:
    """Catches a default password, and a start without one."""
    deployment = Deployment(Engine(tmp_path / "no-engine"), tmp_path)
    deployment.copy()
    for name in (".env", "deploy/gantry.env"):
        assert not (tmp_path / name).exists(), "no such file is in the repository"
    refused = deployment.compose("config", check=False)
    assert "run deploy/compose-env.sh first" in refused
    assert "services:" not in refused
