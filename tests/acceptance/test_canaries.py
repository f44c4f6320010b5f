"""Canary secrets: everything secret that a client can give is given, then looked for in every place."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import pytest
from cryptography.fernet import Fernet

from tests.acceptance.canaries import ALLOWED, FLOWER, MARK, Stage, plant
from tests.acceptance.canary_places import PLACES, in_redis, monitor
from tests.support.cluster import ROOT, Cluster, Process, free_port, test_database_url
from tests.support.engine import run, submit, wait_final, wait_started
from tests.support.fixtures import make_account
from tests.support.receivers import OPEN, Receivers
from tests.support.waiting import limit, wait_until
from workers.models import Callback, Run
from workers.tenants import identity, tenancy

pytestmark = pytest.mark.invariant

PASSWORD: Final = "canary-password correct horse"


def start_flower(cluster: Cluster) -> tuple[Process, str]:
    port = free_port()
    flower = cluster._start(
        "flower",
        [
            *(sys.executable, "-m", "celery", "-A", "config", "flower"),
            *("--address=127.0.0.1", f"--port={port}", "--read-only"),
        ],
        {"FLOWER_BASIC_AUTH": f"gantry:{FLOWER}"},
        ROOT,
    )

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens, why="Flower listens", see=flower.tail)
    return flower, f"http://127.0.0.1:{port}"


@pytest.mark.timeout(300)
def test_secrets_are_found_nowhere(cluster: Cluster) -> None:
    monitored: list[str] = []
    with monitor(monitored), contextlib.ExitStack() as held:
        cluster.node(GANTRY_URI_ALLOW_NETWORKS="127.0.0.0/8")
        cluster.callbacks(settings=OPEN)
        them = held.enter_context(Receivers())
        api = cluster.api(threads=4, GANTRY_CALLBACK_ALLOW_NETWORKS="127.0.0.0/8")
        flower, flower_url = start_flower(cluster)
        account = make_account("default", trusted=True)
        operator = make_account("default", scopes=identity.SCOPES)
        tenancy.create_user("root", password=PASSWORD, superuser=True)
        browser = held.enter_context(httpx.Client(base_url=api.url, follow_redirects=True, timeout=limit(60)))
        token = browser.get("/admin/login/").cookies["csrftoken"]
        login = {"username": "root", "password": PASSWORD, "csrfmiddlewaretoken": token, "next": "/admin/"}
        assert "Log out" in browser.post("/admin/login/", data=login).text
        stage = Stage(cluster, api, flower, flower_url, account, operator, them, browser, monitored)
        plant(stage)
        ended = [run.pk for run in Run.objects.exclude(kind="exec")]
        wait_final(*ended, timeout_s=90)
        wait_until(lambda: Callback.objects.filter(state="delivered").count() == 2, why="callbacks came")
        texts = {name: place(stage) for name, place in PLACES.items()}
        # Looking at pages leaves traces of its own: what holds traces is looked at last.
        texts |= {name: PLACES[name](stage) for name in ("database", "logs", "audit")}
    texts["redis"] = in_redis(stage)
    for name, text in texts.items():
        assert MARK in text, f"the test sees nothing of {name}"
    leaks = [
        f"{what} in {name}"
        for name, text in texts.items()
        for what, secret in stage.planted.items()
        if secret in text and name not in ALLOWED.get(what, ())
    ]
    assert not leaks
    for what, places in ALLOWED.items():
        for name in places:
            assert stage.planted[what] in texts[name], f"{what} is not in {name} any more: shorten the list"


def test_keys_are_changed_while_work_runs_and_waits(cluster: Cluster, shared_folder: Path) -> None:
    """The drill: old key; new and old key, rotated; new key alone. Work that runs and waits goes on."""

    old, new = (Fernet.generate_key().decode() for _ in range(2))
    account = make_account("default", trusted=True)
    manage = [sys.executable, "manage.py"]

    def environment(*keys: str) -> dict[str, str]:

        return {**os.environ, "GANTRY_SECRET_KEYS": ",".join(keys), "DATABASE_URL": test_database_url()}

    def management(code: str, *keys: str) -> str:
        done = subprocess.run(
            [*manage, "shell", "-v0", "-c", code],
            env=environment(*keys),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    stored = management(
        f"from workers import secrets; print(secrets.store({account.tenant_id}, 'x', 'canary'))", old
    )
    read = f"from workers import secrets; print(secrets.reveal({stored}))"
    worker = cluster.node(GANTRY_SECRET_KEYS=old, cpus=0.1)
    gate = shared_folder / "gate"
    gate.touch()
    running = submit(account.tenant_id, f"while test -e {gate}; do sleep 0.1; done; echo end")
    wait_started(running)
    waiting = submit(account.tenant_id, "echo waited")
    for keys in ((new, old), (new,)):
        worker.terminate()
        worker = cluster.node(GANTRY_SECRET_KEYS=",".join(keys), cpus=0.1)
        assert management(read, *keys) == "canary"
        if old in keys:
            told = subprocess.run(
                [*manage, "rotate_secrets"],
                env=environment(*keys),
                capture_output=True,
                text=True,
                check=False,
            )
            assert "1 encrypted with the first key" in told.stdout, told.stderr
    assert (run(running).state, run(waiting).attempt) == ("RUNNING", 0)
    gate.unlink()
    wait_final(running, waiting)
    assert [(run(run_id).state, run(run_id).attempt) for run_id in (running, waiting)] == [
        ("SUCCEEDED", 1)
    ] * 2
    assert (
        "cannot be read"
        in subprocess.run(
            [*manage, "shell", "-v0", "-c", read],
            env=environment(old),
            capture_output=True,
            text=True,
            check=False,
        ).stderr
    )
