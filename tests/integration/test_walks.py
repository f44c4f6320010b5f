"""docs/architecture.md tells the way of a task through the rooms: it is the one that a debugger shows."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

from django.test import Client

from tests.support.cluster import ROOT, Cluster
from tests.support.engine import submit, wait_final
from tests.support.fixtures import Account
from tests.tools.walk import followed

PAGE = (ROOT / "docs" / "architecture.md").read_text()
#: What everybody uses at every step is no station of the way.
_EVERYWHERE = ("workers/vocabulary/", "config/database/")
_WATCH = "import os\nfrom tests.tools.walk import watch\nwatch(os.environ['WALK'])\n"


def _told(after: str) -> list[str]:
    """The modules in the indented block that follows these words."""
    block = PAGE[PAGE.index(after) :].partition("\n\n")[2].partition("\n\n")[0]
    return re.findall(r"[\w/]+\.py", block)


def test_the_way_of_post_v1_tasks_is_the_one_of_the_page(account: Account, remembered: None) -> None:
    client = Client()
    body = json.dumps({"taskName": "hello", "commands": "true"})

    def post() -> None:
        assert client.post("/v1/tasks", body, "application/json", headers=account.headers).status_code == 200

    post()  # what is read once and remembered is read now
    way = [file for file in followed(post) if not file.startswith(_EVERYWHERE)]
    assert way == _told("`POST /v1/tasks`, as a debugger")


def test_the_way_through_a_worker_is_the_one_of_the_page(
    cluster: Cluster, account: Account, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_WATCH)
    walk = tmp_path / "walk"
    cluster.env |= {"WALK": str(walk), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    cluster.node("n1")
    (run,) = wait_final(submit(account.tenant_id, "true"))
    assert run.state == "SUCCEEDED"
    ways: dict[str, list[str]] = defaultdict(list)
    for line in walk.read_text().splitlines():
        thread, module, _ = line.split("\t")
        ways[thread.partition("-")[0]].append(module)
    for words, thread in (
        ("The agent claims", "agent"),
        ("A thread of Celery's pool", "ThreadPoolExecutor"),
        ("The scribe writes", "scribe"),
    ):
        told = _told(words)
        entered = iter(ways[thread])
        # In this order, whatever comes in between: a thread may look several times before there is something.
        assert all(module in entered for module in told), (thread, told, list(dict.fromkeys(ways[thread])))
