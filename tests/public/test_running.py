"""The cases of ``running`` on one node and one API: in as they were sent, out as they were written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.public.running import CASES, COMMAND, CONTAINER, ENVIRONMENT, JOB, MOST, Case
from tests.support.cluster import Cluster
from tests.support.engine import wait_final
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.http import TaskClient
from tests.support.images import BUSYBOX
from tests.support.invariants import assert_invariants
from tests.support.jobs import JobClient, box, open_all
from tests.support.receivers import OPEN, Receivers
from tests.support.waiting import wait_until
from workers.models import Run

#: Brief execs at once in one container.
BRIEF = 40
#: Logs of fewer bytes are followed as well.
FOLLOWED = 2**20


@dataclass(frozen=True)
class Begun:
    """A case under way."""

    case: Case
    where: str
    run: int
    job: str = ""
    executor: str = ""

    def __str__(self) -> str:
        return f"{self.case.name}, as a {self.where}"


class User:
    """One client of the installation, and a container that is there for its jobs."""

    def __init__(self, tasks: TaskClient, jobs: JobClient, engine: Engine) -> None:
        self.http, self.jobs, self.engine = tasks.http, jobs, engine
        self.box = box(engine)

    def begin(self, case: Case, where: str) -> Begun:
        if where == JOB:
            job = self.jobs.save(
                "sh -c '" + case.script.replace("'", "'\"'\"'") + "' x",
                case.name,
                Env=[f"{name}={value}" for name, value in case.env.items()],
                SecretArgs=list(case.arguments),
            )
            executor = self.jobs.start(job, (self.box, "n1"))
            return Begun(case, where, Run.objects.get(owner_id=f"{job}/{executor}").pk, job, executor)
        answer = self.post(case, where)
        assert answer.status_code == 200, (case.name, where, answer.text[:300])
        return Begun(case, where, answer.json()["data"]["taskId"])

    def post(self, case: Case, where: str, **more: Any) -> httpx.Response:
        """Submit a case as a task."""
        body: dict[str, Any] = {
            "taskName": case.name,
            "envs": [{"name": name, "value": value} for name, value in case.env.items()],
            "resources": {"cpu": 0.1, "mem": 256},
            **more,
        }
        if where == COMMAND:
            body["commands"] = case.script
        else:
            body["args"] = ["/bin/sh", "-c", case.script, "x", *case.arguments]
            body["container"] = {"type": "DOCKER", "docker": {"image": BUSYBOX, "forcePullImage": False}}
        return self.http.post("/v1/tasks", json=body)

    def log(self, begun: Begun) -> bytes:
        """The log of the family's own route."""
        if begun.where == JOB:
            return self.jobs.log(begun.job, begun.executor, self.box)
        answer = self.http.get(f"/v1/tasks/{begun.run}/logs", params={"stream": "stdout"})
        assert answer.status_code == 200, answer.text
        return answer.content

    def followed(self, begun: Begun) -> str:
        """The text of its standard output as server-sent events, read as a browser reads them."""
        answer = self.http.get(f"/api/v1/runs/{begun.run}/logs", params={"follow": "1", "stream": "stdout"})
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        found = list(events(answer.content.decode()))
        assert [kind for kind, _ in found if kind != "log"] == ["end"], str(begun)
        return "".join(json.loads(data)["text"] for kind, data in found[:-1])


def events(text: str) -> Iterator[tuple[str, str]]:
    """(event, data) of each by the rules of HTML: a line ends with CR LF, CR or LF."""
    kind, data = "", []
    for line in re.split(r"\r\n|\r|\n", text):
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif not line:
            if data:
                yield kind, "\n".join(data)
            kind, data = "", []


@pytest.mark.timeout(600)
def test_in_and_out(engine: Engine, cluster: Cluster, account: Account, them: Receivers) -> None:
    open_all(account)
    api = cluster.api(GANTRY_CALLBACK_ALLOW_NETWORKS=OPEN["GANTRY_CALLBACK_ALLOW_NETWORKS"])
    cluster.node("n1", settings=engine.env, cpus=16)
    cluster.callbacks(settings=OPEN)
    with TaskClient(api, account) as tasks, JobClient(api, account) as jobs:
        user = User(tasks, jobs, engine)
        every_case(user)
        every_variable(user)
        one_byte_more_is_refused(user)
        forty_brief_execs(user)
        a_name_that_is_the_beginning_of_an_id(user)
        users_that_are_not_there(user)
        text_beyond_the_first_65536_characters_is_called_back(user, them)
    assert_invariants(cluster)


def every_case(user: User) -> None:
    begun = [user.begin(case, where) for case in CASES for where in case.where]
    ends = wait_final(*(item.run for item in begun), timeout_s=120)
    wrong: list[str] = []
    for item, ended in zip(begun, ends, strict=True):
        out = user.log(item)
        if (ended.exit_code, ended.attempt) != (item.case.code, 1):
            wrong.append(f"{item}: exit code {ended.exit_code}, attempt {ended.attempt}: {ended.message}")
        elif out != item.case.out:
            wrong.append(f"{item}: {len(out)} bytes, {out[:200]!r}")
        elif len(out) < FOLLOWED and user.followed(item) != item.case.out.decode():
            wrong.append(f"{item}: followed it is another text")
    assert wrong == []


def every_variable(user: User) -> None:
    # What the shell was given: it hands on what it has names for, and `true` keeps it from becoming cat.
    case = Case("environment", "cat /proc/$$/environ; true", b"", env=ENVIRONMENT)
    begun = [user.begin(case, where) for where in case.where]
    wait_final(*(item.run for item in begun))
    wanted = {f"{name}={value}".encode() for name, value in ENVIRONMENT.items()}
    for item in begun:
        missing = wanted - set(user.log(item).split(b"\0"))
        assert {entry[:60] for entry in missing} == set(), str(item)


def one_byte_more_is_refused(user: User) -> None:
    longer = "x" * (MOST + 1)
    answers = [
        user.post(Case("argument", "true", b"", arguments=(longer,)), CONTAINER),
        user.post(Case("script", f": {longer[2:]}", b""), COMMAND),
        user.post(Case("variable", "true", b"", env={"V": longer[2:]}), COMMAND),
        user.post(Case("variable", "true", b"", env={"V": longer[2:]}), CONTAINER),
    ]
    for fields in ({"SecretArgs": [longer]}, {"Env": [f"V={longer[2:]}"]}):
        body = {"AppName": "app", "Name": f"longer {fields.keys()}", "Cmd": "true", **fields}
        answers.append(user.http.post("/api/jobs", json=body))
    assert [answer.status_code for answer in answers] == [400] * len(answers)


def forty_brief_execs(user: User) -> None:
    job = user.jobs.save("sh -c 'echo brief; echo end >&2; exit 7'", "brief")
    executor = user.jobs.start(job, *[(user.box, "n1")] * BRIEF)
    results = user.jobs.ended(job, executor)
    assert {(item["Status"], item["ExitCode"]) for item in results} == {("FINISHED", 7)}
    assert {item["Output"] for item in results} == {"brief\nend\n"}
    assert len({item["ID"] for item in results}) == BRIEF


def a_name_that_is_the_beginning_of_an_id(user: User) -> None:
    """The name wins, as docker has it; a longer beginning is the other one's."""
    named = box(user.engine, user.box[:12])
    job = user.jobs.save("true", "named")
    executor = user.jobs.start(job, (user.box[:12], "n1"), (user.box[:13], "n1"), (user.box, "n1"))
    results = user.jobs.ended(job, executor)
    assert [item.get("ContainerID", item.get("E")) for item in results] == [named, user.box, user.box]


def users_that_are_not_there(user: User) -> None:
    wanted = {
        "nosuch": "CREATE_FAILED",
        "app:nosuch": "CREATE_FAILED",
        "12345:54321": "FINISHED",
        "app": "FINISHED",
    }
    started = []
    for name in wanted:
        job = user.jobs.save("id -u", f"as {name}", User=name)
        started.append((job, user.jobs.start(job, (user.box, "n1"))))
    results = [user.jobs.ended(*one)[0] for one in started]
    assert [item["Status"] for item in results] == list(wanted.values())
    assert ["nosuch" in item.get("E", "") for item in results] == [True, True, False, False]
    assert [item.get("Output") for item in results[2:]] == ["12345\n", "1000\n"]


def text_beyond_the_first_65536_characters_is_called_back(user: User, them: Receivers) -> None:
    """Catches bytes of a signature that are not those of the body: both as they are sent."""
    name = "𝄞🙂 \u2028 é"
    case = Case(name, "true", b"")
    answer = user.post(case, COMMAND, callbackUrl=them.url(path="/beyond"))
    assert answer.status_code == 200, answer.text
    wait_until(lambda: len(them.at("/beyond")) >= 2, why="both callbacks come", see=lambda: them.got)
    assert {item.json["taskName"] for item in them.at("/beyond")} == {name}
