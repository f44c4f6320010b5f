"""`make demo`: starts everything in a temporary folder, runs commands over real HTTP, shows what happened.

Ends with status 0 when all of it was as promised and nothing is left behind. Must not import Django or any
app: it is a client like any other.
"""

from __future__ import annotations

import base64
import json
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config.local import tiny_image
from config.local.client import Refused
from config.local.programs import fetch
from config.local.receiver import Receiver
from config.local.temporary import GRACE_S, DemoFailed, Service, expect, processes_with, show_logs
from config.local.terminal import complain, note, paint, quote, step

BATCH = 20
#: Longest wait for anything that is there at once on a quiet machine, in seconds.
PATIENCE_S = 90.0
#: The family's numbers, in the words of its documentation.
STATUS = {
    -1: "NOT_START",
    0: "STAGING",
    1: "RUNNING",
    2: "FINISHED",
    3: "FAILED",
    4: "LOST",
    5: "ERROR",
    6: "KILLED",
    7: "UNREACHABLE",
    8: "DROPPED",
    9: "GONE",
    10: "GONE_BY_OPERATOR",
    11: "UNKNOWN",
    12: "EXPIRED",
}
RUNNING, FINISHED, FAILED, KILLED = 1, 2, 3, 6

#: {nap} tells this demo's processes from others on the machine.
STUBBORN = """\
trap '' TERM
setsid sh -c "trap '' TERM; {nap}" &
echo "I ignore TERM, and so does my child in a session of its own"
while :; do sleep 1; done
"""


def demo() -> int:
    """The whole tour. Returns the exit status."""
    # Short, because a unix socket's address has 108 bytes.
    folder = Path(tempfile.mkdtemp(prefix="gantry-demo-", dir="/tmp"))
    folder.chmod(0o711)
    began = time.monotonic()
    print(f"{paint('Gantry demo', 'strong')}: everything lives in {folder} and is removed at the end.")
    status = 1
    # Also where a shell started this in the background and had Ctrl-C ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    service = Service(folder)
    try:
        with service:
            Tour(service).walk()
        service.check_nothing_is_left()
        status = 0
    except (DemoFailed, Refused, TimeoutError) as error:
        complain(f"\nThe demo failed: {error}")
        show_logs(folder)
    except KeyboardInterrupt:
        complain("\nThe demo was interrupted.")
        status = 130
    finally:
        if status != 0:
            service.end_leftovers()
        shutil.rmtree(folder, ignore_errors=True)
    if status == 0:
        print(f"\n{paint('Done', 'good')} in {time.monotonic() - began:.1f} s. The service itself: make up")
    return status


class Tour:
    """What the demo shows, one method a thing."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.client = service.client
        self.ids: dict[str, int] = {}

    def walk(self) -> None:
        self.hello()
        self.follow()
        self.failure()
        self.kill()
        self.waiting()
        self.callback()
        self.container()
        self.many()
        self.table()
        self.flower()

    # --- the tour ---

    def hello(self) -> None:
        step("A command")
        task = {
            "taskName": "hello",
            "commands": "echo Hello from uid $(id -u) in $PWD; echo COLOR is $COLOR",
            "env": {"name": "COLOR", "value": "blue"},
        }
        note(f"POST /v1/tasks {json.dumps(task)}")
        began = time.monotonic()
        found = self.wait(self.submit(task))
        expect(found["taskStatus"] == FINISHED, f"hello did not finish: {found}")
        note(
            f"task {found['taskId']} {describe(found)}, {time.monotonic() - began:.2f} s after its submission"
        )
        quote(self.client.text(f"/v1/tasks/{found['taskId']}/logs?stream=stdout"))

    def follow(self) -> None:
        step("A log, followed while it is written")
        task_id = self.submit(
            {"taskName": "count", "commands": "for i in 1 2 3 4 5; do echo step $i of 5; sleep 1; done"}
        )
        note(f"GET /v1/tasks/{task_id}/logs?stream=stdout&follow=1")
        began = time.monotonic()
        seen: list[tuple[float, str]] = []
        for line in self.client.follow(f"/v1/tasks/{task_id}/logs?stream=stdout&follow=1"):
            if line.startswith("step"):
                seen.append((time.monotonic() - began, line))
                print(f"      {seen[-1][0]:5.2f} s | {line}", flush=True)
        expect([text for _, text in seen] == [f"step {i} of 5" for i in range(1, 6)], f"the log was {seen}")
        expect(seen[-1][0] - seen[0][0] > 1.0, "the lines came all at once, not while they were written")
        found = self.wait(task_id)
        expect(found["taskStatus"] == FINISHED, f"count did not finish: {found}")

    def failure(self) -> None:
        step("A command that fails")
        found = self.wait(
            self.submit({"taskName": "failing", "commands": "echo 'disk not found' >&2; exit 3"})
        )
        expect(found["taskStatus"] == FAILED, f"failing did not fail: {found}")
        expect("3" in found["message"], f"the message does not name the exit status: {found['message']}")
        note(f"task {found['taskId']} {describe(found)}")
        quote(self.client.text(f"/v1/tasks/{found['taskId']}/logs?stream=stderr"), "stderr")

    def kill(self) -> None:
        step("A command that ignores TERM, with a child in a session of its own, is killed")
        nap = f"sleep {600 + random.random():.6f}"  # noqa: S311 - a name, not a secret
        task_id = self.submit({"taskName": "stubborn", "commands": STUBBORN.format(nap=nap)})
        self.wait_for(task_id, lambda task: task["taskStatus"] == RUNNING, "start")
        self.wait_for_output(task_id)
        began = time.monotonic()
        answer = self.client.call("POST", f"/v1/tasks/kill?taskId={task_id}")["data"]
        note(f"POST /v1/tasks/kill?taskId={task_id} -> {answer['resultMessage']}")
        found = self.wait(task_id)
        took = time.monotonic() - began
        expect(found["taskStatus"] == KILLED, f"stubborn was not killed: {found}")
        note(f"task {task_id} {describe(found)}, {took:.1f} s later (TERM, {GRACE_S} s grace, KILL)")
        left = processes_with(nap)
        expect(not left, f"its processes survived: {left}")
        note("none of its processes is left")

    def waiting(self) -> None:
        step("A task for a rack that does not exist")
        task_id = self.submit(
            {
                "taskName": "elsewhere",
                "commands": "true",
                "constraints": {"field": "rack_id", "values": ["r9"]},
            }
        )
        explained = self.client.call("GET", f"/v1/tasks/{task_id}/explain")["data"]
        expect(bool(explained.get("reasons")), f"no reason is given: {explained}")
        note(f"task {task_id} waits. GET /v1/tasks/{task_id}/explain says:")
        for reason in explained["reasons"]:
            note(f"  {reason['code']}: {reason['message']}")
            if reason.get("remedy"):
                note(f"  remedy: {reason['remedy']}")
        answer = self.client.call("POST", f"/v1/tasks/kill?taskId={task_id}")["data"]
        expect(answer["currentStatus"] == KILLED, f"a waiting task was not killed at once: {answer}")
        note(f"killed while it waited -> {answer['resultMessage']}")

    def callback(self) -> None:
        step("A callback instead of polling")
        made = self.client.call("POST", "/api/v1/callbacks/secrets", {})
        with Receiver(made["secret"]) as receiver:
            task = {"taskName": "told", "commands": "echo done", "callbackUrl": receiver.url}
            note(f"POST /v1/tasks {json.dumps(task)}")
            task_id = self.submit(task)
            deadline = time.monotonic() + PATIENCE_S
            while len(receiver.taken) < 2:
                expect(receiver.refused == 0, "a callback came with a wrong signature")
                expect(
                    time.monotonic() < deadline,
                    f"callbacks that came within {PATIENCE_S:.0f} s: {receiver.taken}",
                )
                time.sleep(0.05)
        for body in receiver.taken:
            expect(body["taskId"] == task_id, f"a callback about another task came: {body}")
            note(f"received: {body['result']}: {body['message'] or '-'}; its signature is right")
        note("its log URL needs no token:")
        quote(self.client.text("/v1/tasks/" + receiver.taken[-1]["logs"][0].partition("/v1/tasks/")[2]))

    def container(self) -> None:
        step("A container")
        engine, tiny = tiny_image.Engine(), None
        try:
            tiny = tiny_image.make(engine)
            note(f"image {tiny.name}, made from {tiny.program} and nothing else")
        except tiny_image.NoImage as error:
            note(f"no image: {error}")
        docker = {"image": tiny.name if tiny else "busybox", "forcePullImage": False}
        task = {
            "taskName": "container",
            "container": {"docker": docker},
            "args": tiny.args if tiny else ["true"],
            "resources": {"cpu": 0.5, "mem": 256},
        }
        try:
            self.run_container(task, expected=tiny is not None)
        finally:
            if tiny is not None:
                tiny.remove()

    def run_container(self, task: dict[str, Any], *, expected: bool) -> None:
        """Run it where a node can; else show why it waits."""
        note(f"POST /v1/tasks {json.dumps(task)}")
        task_id = self.submit(task)
        reasons = self.why_waiting(task_id, seconds=15 if expected else 1)
        if reasons:
            note(f"task {task_id} waits, everything else goes on. GET /v1/tasks/{task_id}/explain says:")
            for reason in reasons:
                note(f"  {reason['code']}: {reason['message']}")
                if reason.get("remedy"):
                    note(f"  remedy: {reason['remedy']}")
            self.client.call("POST", f"/v1/tasks/kill?taskId={task_id}")
            return
        found = self.wait(task_id)
        if expected:
            expect(found["taskStatus"] == FINISHED, f"the container did not finish: {found}")
        note(f"task {task_id} {describe(found)}")
        quote(self.client.text(f"/v1/tasks/{task_id}/logs?stream=stdout"))

    def why_waiting(self, task_id: int, seconds: float) -> list[dict[str, Any]]:
        """The reasons, if it waits for something that does not pass within this time; [] once it is taken."""
        deadline = time.monotonic() + seconds
        while True:
            [task] = self.client.call("GET", f"/v1/tasks?taskIds={task_id}")["data"]
            if task["taskStatus"] >= 0:
                return []
            if time.monotonic() > deadline:
                explained = self.client.call("GET", f"/v1/tasks/{task_id}/explain")["data"]
                return list(explained["reasons"])
            time.sleep(0.1)

    def many(self) -> None:
        step(f"{BATCH} small commands at once")
        began = time.monotonic()
        ids = [
            self.submit(
                {"taskName": f"small {n}", "commands": f"echo {n}", "resources": {"cpu": 0.1, "mem": 256}}
            )
            for n in range(BATCH)
        ]
        submitted = time.monotonic() - began
        tasks = self.wait_all(ids)
        took = time.monotonic() - began
        expect(all(task["taskStatus"] == FINISHED for task in tasks), f"not all finished: {tasks}")
        note(f"submitted in {submitted:.2f} s, all finished after {took:.2f} s")

    def table(self) -> None:
        step("What became of them: one query")
        ids = ",".join(str(task_id) for task_id in list(self.ids.values())[:5])
        tasks = self.client.call("GET", f"/v1/tasks?taskIds={ids}")["data"]
        note(f"GET /v1/tasks?taskIds={ids}")
        note(paint(f"{'id':>4}  {'name':<10} {'status':<10} {'host':<6} message", "quiet"))
        for task in tasks:
            status = STATUS[task["taskStatus"]]
            host, message = task.get("agentHost", "-"), task.get("message", "")
            note(f"{task['taskId']:>4}  {task['taskName']:<10} {status:<10} {host:<6} {message}")
        expect(len(tasks) == 5, f"asked for 5 tasks, got {len(tasks)}")

    def flower(self) -> None:
        step("Flower, which watches the workers")
        url = f"http://127.0.0.1:{self.service.flower_port}"
        patience = time.monotonic() + PATIENCE_S
        while not (status := fetch(f"{url}/api/workers")[0]) and time.monotonic() < patience:
            time.sleep(0.2)
        expect(status == 401, f"Flower answers {status} without its password")
        password = (self.service.folder / "secrets" / "flower-password").read_text().strip()
        login = base64.b64encode(f"gantry:{password}".encode()).decode()
        deadline = time.monotonic() + 15
        while True:
            status, text = fetch(f"{url}/api/tasks?limit=1000", {"Authorization": f"Basic {login}"})
            known = json.loads(text) if status == 200 else {}
            tasks = [task for task in known.values() if task.get("name") == "gantry.execute"]
            if len(tasks) > BATCH or time.monotonic() > (deadline if tasks else patience):
                break
            time.sleep(0.2)
        expect(bool(tasks), f"Flower knows no task; it answers {status}: {text[:200]}")
        workers = sorted({str(task["worker"]) for task in tasks if task.get("worker")})
        note(f"{url} shows {len(tasks)} executions on {', '.join(workers)}; without its password: 401")

    # --- helpers ---

    def submit(self, task: dict[str, Any]) -> int:
        task_id = int(self.client.call("POST", "/v1/tasks", task)["data"]["taskId"])
        self.ids[task["taskName"]] = task_id
        return task_id

    def wait(self, task_id: int, seconds: float = PATIENCE_S) -> dict[str, Any]:
        return self.wait_for(task_id, lambda task: task["taskStatus"] > RUNNING, "end", seconds)

    def wait_for(
        self, task_id: int, done: Callable[[dict[str, Any]], bool], what: str, seconds: float = PATIENCE_S
    ) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while True:
            [task] = self.client.call("GET", f"/v1/tasks?taskIds={task_id}")["data"]
            if done(task):
                found: dict[str, Any] = task
                return found
            expect(
                time.monotonic() < deadline, f"task {task_id} did not {what} within {seconds:.0f} s: {task}"
            )
            time.sleep(0.05)

    def wait_for_output(self, task_id: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.client.text(f"/v1/tasks/{task_id}/logs?stream=stdout"):
            expect(time.monotonic() < deadline, f"task {task_id} wrote nothing within {PATIENCE_S:.0f} s")
            time.sleep(0.1)

    def wait_all(self, ids: list[int], seconds: float = PATIENCE_S) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        query = ",".join(map(str, ids))
        while True:
            tasks: list[dict[str, Any]] = self.client.call("GET", f"/v1/tasks?taskIds={query}")["data"]
            if all(task["taskStatus"] > RUNNING for task in tasks):
                return tasks
            expect(time.monotonic() < deadline, f"not all ended within {seconds:.0f} s")
            time.sleep(0.05)


def describe(task: dict[str, Any]) -> str:
    return f"{STATUS[task['taskStatus']]}: {task.get('message', '')}"
