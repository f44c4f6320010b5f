"""Containers as a user has them: all by HTTP, a real worker and engine, what the container itself sees."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from tests.support import images
from tests.support.cluster import Cluster
from tests.support.containers import container_of, containers_of
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.http import TaskClient
from tests.support.images import AS_APP, BUSYBOX
from tests.support.invariants import assert_invariants
from tests.support.waiting import wait_until
from workers.models import Attempt, Tenant

SEED = Path(__file__).parent.parent / "contracts" / "tasks" / "seed" / "run_container.json"
SEEDS_IMAGE = "dockerhub.XXXX.com/demo-slice"
FINAL = range(2, 13)
NOT_ALLOWED = -2127552256


class User:
    """A user of the tasks family who runs containers."""

    def __init__(self, client: TaskClient, engine: Engine, cluster: Cluster, tenant_id: int) -> None:
        self.http = client.http
        self.engine = engine
        self.cluster = cluster
        self._tenant_id = tenant_id

    def send(self, body: dict[str, Any] | bytes) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post("/v1/tasks", content=content, headers={"Content-Type": "application/json"})

    def submit(self, script: str = "", *, docker: dict[str, Any] | None = None, **body: Any) -> int:
        """A container of BUSYBOX with this script, unless told otherwise; returns its taskId."""
        container = {
            "type": "DOCKER",
            "docker": {"image": BUSYBOX, "forcePullImage": False, **(docker or {})},
        }
        container |= body.pop("container", {})
        given = {"taskName": "box", "container": container, "resources": {"cpu": 0.5, "mem": 256}, **body}
        if script:
            given["args"] = ["/bin/sh", "-c", script]
        answer = self.send(given)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["data"]["taskId"])

    def refused(self, docker: dict[str, Any] | None = None, **container: Any) -> str:
        """The message of a submission that must be refused."""
        box = {"type": "DOCKER", "docker": {"image": BUSYBOX, **(docker or {})}, **container}
        answer = self.send({"taskName": "box", "container": box})
        assert (answer.status_code, answer.json()["status"]) == (400, NOT_ALLOWED), answer.text
        return str(answer.json()["message"])

    def task(self, task_id: int) -> dict[str, Any]:
        (found,) = self.http.get("/v1/tasks", params={"taskIds": task_id}).json()["data"]
        return dict(found)

    def ended(self, task_id: int, timeout_s: float = 90.0) -> tuple[int, str]:
        """Wait for the end: taskStatus and message."""

        def final() -> dict[str, Any] | None:
            found = self.task(task_id)
            return found if found["taskStatus"] in FINAL else None

        found = wait_until(final, timeout_s, why=f"task {task_id} ends", see=lambda: self.task(task_id))
        return found["taskStatus"], found["message"]

    def log(self, task_id: int, stream: str = "stdout") -> str:
        answer = self.http.get(f"/v1/tasks/{task_id}/logs", params={"stream": stream})
        assert answer.status_code == 200, answer.text
        return answer.text

    def told(self, script: str, **more: Any) -> list[str]:
        """Run a script to its successful end: the lines that it wrote."""
        task_id = self.submit(script, **more)
        status, message = self.ended(task_id)
        assert status == 2, f"{message}: {self.log(task_id, 'stderr')}"
        return self.log(task_id).splitlines()

    def allow(self, *keys: str) -> None:
        """What an operator opens for this user's tenant."""
        Tenant.objects.filter(pk=self._tenant_id).update(policy=dict.fromkeys(keys, True))

    def has_left_nothing(self) -> None:
        """What is left of a step is an error."""
        assert_invariants(self.cluster, engines=[self.engine])

    def wait_running(self, task_id: int) -> None:
        wait_until(lambda: self.task(task_id)["taskStatus"] == 1, why=f"task {task_id} runs")


@pytest.fixture
def user(engine: Engine, cluster: Cluster, account: Account) -> Iterator[User]:
    """A node with an engine and an API."""
    api = cluster.api(GANTRY_TOKEN_CACHE_S="0")
    cluster.node(settings={**engine.env, "GANTRY_REGISTRY_RETRY_S": "1"}, mem_mb=4096)
    with TaskClient(api, account) as client:
        yield User(client, engine, cluster, account.tenant_id)


@pytest.mark.timeout(900)
def test_containers_of_a_tenant_with_no_privileges(user: User) -> None:
    """One after another; each step says what it catches, and leaves nothing."""
    the_seeds_example(user)
    ends_are_told_apart(user)
    what_a_container_finds_around_it(user)
    kill_ends_the_container_and_all_in_it(user)
    a_failing_container_is_tried_again(user)
    reconcile_asks_the_engine(user)


@pytest.mark.timeout(900)
def test_what_an_operator_allows(user: User, shared_folder: Path) -> None:
    """Of their own: a node remembers for seconds what a tenant may do."""
    dangerous_things_are_refused_until_an_operator_allows_them(user, shared_folder)
    a_mount_that_is_not_there_is_an_error(user)


# --- what the documents show ----------------------------------------------------------------------------


def the_seeds_example(user: User) -> None:
    """The seed's request, byte for byte. Its registry is not there, so that the image made here runs instead.

    Catches: arguments or environment that do not arrive, a forced pull that fails although the image is
    present, and one that is not told.
    """
    mine = "gantry-test/demo-slice:1"
    images.derive(user.engine, mine, 'ENTRYPOINT ["/bin/sh", "-c", "echo $environment $0"]')
    images.tag(user.engine, SEEDS_IMAGE, mine)
    answer = user.send(SEED.read_bytes())
    assert answer.status_code == 200, answer.text
    task_id = answer.json()["data"]["taskId"]
    status, message = user.ended(task_id)
    assert (status, user.log(task_id)) == (2, "dev this is a test\n")
    assert message.startswith("Container exited with status 0")
    assert "local" in message, message
    found = user.task(task_id)
    assert (found["dockerImage"], found["agentHost"]) == (SEEDS_IMAGE, socket.gethostname())
    assert "commands" not in found
    images.forget(user.engine, f"{SEEDS_IMAGE}:latest", mine)
    user.has_left_nothing()


def ends_are_told_apart(user: User) -> None:
    """Catches: a user's own end that is taken for something else; 137 for want of memory without a reason,
    and a child that dies of it while its parent calls it a failure of its own; an image that nobody has."""
    good = user.submit("echo out; echo err >&2")
    bad = user.submit("exit 3")
    like_a_kill = user.submit("exit 137")
    eater = user.submit("exec tail /dev/zero")
    parent = user.submit("tail /dev/zero; exit 9")
    content = user.submit("tail /dev/zero; exit 0", retry=1)
    no_image = user.submit(docker={"image": "no-such/image:1"})
    no_local = user.submit(docker={"image": "127.0.0.1:9/nowhere:1", "forcePullImage": True})
    assert user.ended(good) == (2, "Container exited with status 0")
    assert (user.log(good), user.log(good, "stderr")) == ("out\n", "err\n")
    assert user.ended(bad) == (3, "Container exited with status 3")
    assert user.ended(like_a_kill) == (3, "Container exited with status 137")
    assert user.ended(eater) == (3, "Container exited with status 137 (out of memory)")
    assert user.ended(parent) == (3, "Container exited with status 9 (out of memory)")
    assert user.ended(content) == (
        2,
        "Container exited with status 0 (a process of it was killed for lack of memory)",
    )
    assert Attempt.objects.filter(run_id=content).count() == 1
    for task_id, image in ((no_image, "no-such/image:1"), (no_local, "127.0.0.1:9/nowhere:1")):
        status, message = user.ended(task_id)
        assert (status, image in message) == (5, True), message
    digest = Attempt.objects.get(run_id=good).facts["image_digest"]
    assert digest.startswith("sha256:"), digest
    user.has_left_nothing()


def what_a_container_finds_around_it(user: User) -> None:
    """Catches: a limit that is reserved but not set; privileges that nobody asked for; an environment of the
    worker's; a folder that is not writable."""
    _assert_limits(user)
    _assert_few_privileges(user)
    _assert_environment(user)
    user.has_left_nothing()


def _assert_limits(user: User) -> None:
    memory, swap, quota, period, pids = user.told(
        """cd /sys/fs/cgroup
        if test -e memory.max; then cat memory.max; echo $(($(cat memory.max) + $(cat memory.swap.max)))
            set -- $(cat cpu.max); echo $1; echo $2; cat pids.max
        else cat memory/memory.limit_in_bytes
            cat memory/memory.memsw.limit_in_bytes 2>/dev/null || cat memory/memory.limit_in_bytes
            cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us pids/pids.max; fi""",
        resources={"cpu": 1.5, "mem": 300},
    )
    assert (int(memory), int(swap)) == (300 * 2**20, 300 * 2**20)
    assert int(quota) / int(period) == 1.5
    assert 0 < int(pids) < 100_000
    more_than_it_has = user.told("echo fine", resources={"cpu": 8, "mem": 256})
    assert more_than_it_has == ["fine"], "more CPUs than the engine has are refused by it, if asked that way"


def _assert_few_privileges(user: User) -> None:
    look = "id -u; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; mount -t tmpfs x /tmp 2>&1"
    for image, uid in ((BUSYBOX, None), (AS_APP, "1000")):
        task_id = user.submit(f"{look}; exit 0", docker={"image": image})
        assert user.ended(task_id)[0] == 2
        found, *status, refused = user.log(task_id).splitlines()
        if uid is not None:
            assert found == uid, "the image's own user"
        told = {line.split()[0]: line.split()[1] for line in status}
        assert told == {"CapEff:": "0" * 16, "CapBnd:": "0" * 16, "NoNewPrivs:": "1"}
        assert "denied" in refused or "not permitted" in refused
    box = user.submit("sleep 600")
    user.wait_running(box)
    host = container_of(user.engine, box)["HostConfig"]
    assert (host["AutoRemove"], host["Init"], host["Privileged"], host["CapDrop"]) == (
        *(False, True, False),
        ["ALL"],
    )
    assert host["LogConfig"]["Config"]["max-size"], "a log without a limit fills the node"
    user.http.post("/v1/tasks/kill", params={"taskId": box})
    assert user.ended(box)[0] == 6


def _assert_environment(user: User) -> None:
    told = user.told(
        "echo $A-$B-$C; echo mine > file; cat file; pwd; env | grep -cE 'DATABASE|REDIS|SECRET'; true",
        env={"name": "A", "value": 1.5},
        envs=[{"name": "B", "value": True}, {"name": "C", "value": "c d"}],
    )
    assert told == ["1.5-true-c d", "mine", told[2], "0"]
    assert told[2].startswith("/")
    assert told[2] != "/"


# --- refused, allowed -----------------------------------------------------------------------------------


def dangerous_things_are_refused_until_an_operator_allows_them(user: User, shared_folder: Path) -> None:
    """Catches: a door that is open by default, or stays shut when it was opened."""
    (shared_folder / "file").write_text("of the host\n")
    volume = {"containerPath": "/given", "hostPath": str(shared_folder), "mode": "RO"}
    assert "volumes" in user.refused(volumes=[volume])
    assert "privileged" in user.refused({"privileged": True})
    assert "HOST" in user.refused({"net": "HOST"})
    assert "parameters" in user.refused({"parameters": [{"key": "hostname", "value": "h"}]})
    assert "hostPort" in user.refused({"portMappings": [{"containerPort": 80, "hostPort": 8080}]})
    assert user.engine.containers() == []
    user.allow("volumes", "privileged", "host_network", "parameters")
    told = user.told(
        "cat /given/file; touch /given/new 2>/dev/null || echo shut", container={"volumes": [volume]}
    )
    assert told == ["of the host", "shut"]
    writable = {**volume, "mode": "RW"}
    user.told("echo made > /given/made", container={"volumes": [writable]})
    assert (shared_folder / "made").read_text() == "made\n"
    _assert_privileged(user)
    outside = user.told("ls /sys/class/net", docker={"net": "HOST"})
    assert any("docker0" in line for line in outside)
    assert user.told("ls /sys/class/net", docker={"net": "NONE"}) == ["lo"]
    parameters = [{"key": "hostname", "value": "called-so"}]
    assert user.told("hostname", docker={"parameters": parameters}) == ["called-so"]
    user.has_left_nothing()


def _assert_privileged(user: User) -> None:
    """A machine that lacks a capability itself cannot give them all: then its engine says just that."""
    task_id = user.submit("grep CapEff /proc/self/status", docker={"privileged": True})
    status, message = user.ended(task_id)
    try:
        user.engine.client.containers.run(BUSYBOX, ["true"], privileged=True, remove=True)
    except docker.errors.APIError:
        assert (status, "caps" in message) == (5, True), message
    else:
        assert int(user.log(task_id).split()[1], 16) > 0
    user.engine.client.api.prune_containers(filters={"label!": "gantry.run"})


def a_mount_that_is_not_there_is_an_error(user: User) -> None:
    """Catches: a folder that the engine makes as root where there was none; a run offered again and again."""
    user.allow("volumes")
    volume = {"containerPath": "/given", "hostPath": "/no/such/folder", "mode": "RW"}
    status, message = user.ended(user.submit("true", container={"volumes": [volume]}))
    assert (status, "/no/such/folder" in message) == (5, True), message
    assert not Path("/no/such").exists()
    user.has_left_nothing()


# --- kill, retry, reconcile, wait -----------------------------------------------------------------------


def kill_ends_the_container_and_all_in_it(user: User) -> None:
    task_id = user.submit("trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 600' & sleep 600; sleep 600")
    user.wait_running(task_id)
    box = container_of(user.engine, task_id)["Id"]
    # Its init, two shells, what they started: a container runs a moment before all of them do.
    wait_until(lambda: len(user.engine.pids(box)) > 3, why="the shell has started its children")
    pids = user.engine.pids(box)
    answer = user.http.post("/v1/tasks/kill", params={"taskId": task_id})
    assert answer.json()["data"]["submitKill"] is True
    assert user.ended(task_id) == (6, "task is killed")
    wait_until(lambda: not containers_of(user.engine, task_id), why="it is removed")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    again = user.http.post("/v1/tasks/kill", params={"taskId": task_id})
    assert again.json()["data"] == {
        "submitKill": False, "submitTask": False, "resultMessage": "task is killed", "currentStatus": 6,
    }  # fmt: skip
    user.has_left_nothing()


def a_failing_container_is_tried_again(user: User) -> None:
    task_id = user.submit("echo try; exit 4", retry=2)
    assert user.ended(task_id) == (3, "Container exited with status 4")
    assert [item.exit_code for item in Attempt.objects.filter(run_id=task_id).order_by("number")] == [4, 4, 4]
    user.has_left_nothing()


def reconcile_asks_the_engine(user: User) -> None:
    """Catches: an answer from the database alone; a container that is gone and stays RUNNING."""
    task_id = user.submit("sleep 600")
    user.wait_running(task_id)

    def compared() -> dict[str, Any] | None:
        """The answer, once the node has given its part within the time that a client is kept waiting."""
        found = user.http.post("/v1/tasks/reconcile", params={"taskIds": f"{task_id},77"}).json()["data"]
        return dict(found) if found["reconcile"] else None

    answer = wait_until(compared, why="the node says what it knows")
    assert (answer["request"], answer["reconcile"]) == (2, 1)
    told = {item["taskId"]: (item["reconciled"], item["message"]) for item in answer["reconciles"]}
    assert told[task_id][0] is True
    assert "running" in told[task_id][1]
    assert told[77] == (False, "invalid taskId")
    user.engine.client.api.remove_container(container_of(user.engine, task_id)["Id"], force=True)
    user.http.post("/v1/tasks/reconcile", params={"taskIds": str(task_id)})
    status, _ = user.ended(task_id)
    assert status in (3, 4), "the container is gone: it failed, or nobody knows how it ended"
    user.has_left_nothing()


def test_without_an_engine_containers_wait_and_say_why(cluster: Cluster, account: Account) -> None:
    """Catches: a service that does not start without an engine, or a task that waits in silence."""
    api = cluster.api()
    nowhere = cluster.folder / "no-engine.sock"
    cluster.node(DOCKER_HOST=f"unix://{nowhere}")
    with TaskClient(api, account) as client:
        answer = client.http.post(
            "/v1/tasks", json={"taskName": "box", "container": {"docker": {"image": BUSYBOX}}}
        )
        task_id = answer.json()["data"]["taskId"]

        def told() -> list[str]:
            return [
                item["message"] for item in client.explain(task_id)["reasons"] if "ngine" in item["message"]
            ]

        wait_until(told, why="explain names the engine", see=lambda: client.explain(task_id))
        quick = client.submit("echo commands run")
        wait_until(
            lambda: client.http.get(f"/v1/tasks/{quick}").json()["data"]["taskStatus"] == 2,
            why="commands run",
        )
        client.http.post("/v1/tasks/kill", params={"taskId": task_id})
    assert_invariants(cluster)
