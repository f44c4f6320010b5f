"""The README's curl lines, word for word, against a live API and node. Catches a README that lies."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from tests.support import images
from tests.support.cluster import ROOT, Cluster
from tests.support.engine import output
from tests.support.engines import Engine
from tests.support.fixtures import Account, make_account
from tests.support.jobs import box, open_all
from tests.support.staged import OPEN
from tests.support.swift import Swift
from tests.support.waiting import limit, wait_until
from workers.models import Run


def curl_lines() -> list[str]:
    """Every curl call of the README with its continuation lines, in order."""
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip().startswith("curl ")]


class Reader:
    """Somebody who types what the README says, and fills in what it leaves open."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self.env = {"TOKEN": token, "PATH": "/usr/bin:/bin"}
        #: Words of the README that stand for something of the reader's.
        self.words: dict[str, str] = {}

    def read(self, line: str) -> str:
        """Execute a line; what it prints."""
        command = line.replace("http://127.0.0.1:8000", self._url)
        for word, meaning in self.words.items():
            command = re.sub(rf"\b{word}\b", meaning, command)
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=limit(150),
            check=True,
        )
        return done.stdout


@pytest.mark.django_db(transaction=True, reset_sequences=True)
def test_the_first_tasks_of_the_readme(engine: Engine, cluster: Cluster, account: Account) -> None:
    """Task ids in the README are 1 and 2: the sequences start anew."""
    assert shutil.which("curl"), "curl is needed to try the README: apt-get install curl"
    images.tag(engine, "busybox:latest")
    cluster.node(settings=engine.env)
    reader = Reader(cluster.api().url, account.token)
    answers = [
        reader.read(line)
        for line in curl_lines()
        if not re.search("/api/jobs|/v1/queues|/v1/vm|/runtask/|/job/", line)
    ]
    submitted, asked, followed, picky, explained, killed, box = answers
    assert json.loads(submitted) == {"status": 0, "message": "OK", "data": {"taskId": 1}}
    assert json.loads(asked)["data"][0]["taskName"] == "hello"
    assert re.fullmatch(r"hello from \S+\ndone\n", followed)
    assert json.loads(picky)["data"] == {"taskId": 2}
    assert json.loads(explained)["data"]["reasons"][0]["message"] == "no node has rack_id in [r9]"
    told = json.loads(killed)["data"]
    assert (told["submitKill"], told["resultMessage"], told["currentStatus"]) == (True, "task is killed", 6)
    assert json.loads(box)["data"] == {"taskId": 3}
    for task in (1, 3):
        wait_until(
            Run.objects.filter(pk=task, state="SUCCEEDED").exists,
            120,
            why=f"task {task} ends well",
        )
    assert output(3) == b"hello\n"
    # There is no registry here: the image at hand runs, and the message says so.
    assert "busybox:latest could not be pulled" in Run.objects.get(pk=3).message
    images.forget(engine, "busybox:latest")
    _wait_for_resources(reader, account)


def _wait_for_resources(reader: Reader, account: Account) -> None:
    """The queues of the README, which needs no node but one that looks."""
    reader.env["TOKEN"] = make_account(account.tenant, scopes=("read", "submit", "operate")).token
    declare, ask, explain = (line for line in curl_lines() if re.search("/v1/queues|/v1/vm", line))
    assert json.loads(reader.read(declare))["aggregate"] == "rack-1"
    assert json.loads(reader.read(ask))["data"]["Status"] == "queued"
    wait_until(lambda: json.loads(reader.read(explain))["data"]["state"] == "running", why="it is admitted")


def test_the_swift_of_the_readme(cluster: Cluster, account: Account, swift: Swift) -> None:
    cluster.env |= OPEN
    cluster.node("n1")
    swift.api("PUT", "/genomes")
    swift.put("genomes/reads.fasta", b">a\nACGT\n>b\nAC\n")
    reader = Reader(cluster.api().url, account.token)
    submit, look = (line for line in curl_lines() if re.search("/runtask/|/job/", line))
    reader.env |= {"SWIFT": swift.url}
    reader.env["ID"] = json.loads(reader.read(submit))["job_id"]
    assert json.loads(reader.read(look))["process_out"].startswith("sequences\t2\n")


def test_the_saved_jobs_of_the_readme(engine: Engine, cluster: Cluster, account: Account) -> None:
    box(engine, "lab")
    open_all(account)
    cluster.node("n1", settings=engine.env)
    reader = Reader(cluster.api().url, account.token)
    reader.words = {"CONTAINER": "lab", "NODE": "n1"}
    create, start, inspect, log = (line for line in curl_lines() if "/api/jobs" in line)
    reader.env["JOB"] = str(json.loads(reader.read(create))["JobId"])
    reader.env["START"] = str(json.loads(reader.read(start))["Executors"][-1])
    wait_until(Run.objects.filter(kind="exec", state="SUCCEEDED").exists, 120, why="the start ends well")
    (result,) = json.loads(reader.read(inspect))["Result"]
    assert (result["Status"], result["ExitCode"], result["ContainerId"]) == ("FINISHED", 0, "lab")
    assert "uid=0(root)" in reader.read(log)
