"""Canary secrets: everything secret that a client can give is given, then looked for in every place.

A new kind of secret is one line in ``plant`` (what is given) and, where it may be found, in ``ALLOWED``; a
new place is one function in ``PLACES``. What the places show is proved by a mark that must be found in each.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import redis
from cryptography.fernet import Fernet
from django.db import connection

from jobs.models import Executor
from tests.integration.test_browsers import basic
from tests.support.cluster import ROOT, Api, Cluster, Process, free_port, test_database_url, wait_until
from tests.support.engine import run, submit, wait_final, wait_started
from tests.support.fixtures import Account, make_account
from tests.support.receivers import OPEN, Receivers
from tests.support.session import REDIS
from workers import identity, secrets, tenancy
from workers.models import AuditEntry, Callback, Run

PASSWORD: Final = "canary-password correct horse"
FLOWER: Final = "canary-flower"
MARK: Final = "lighthouse"
#: Secret -> places where it is meant to be, and must be: see docs/security.md, "Secrets".
ALLOWED: Final = {
    # A command's environment and the query of its files' addresses are its specification: the database holds
    # them, the worker hands them to the command, nobody lists them.
    "canary-env": {"database"},
    "canary-uri-query": {"database"},
    # Env of a saved job is documented as readable by its owner; secrets go into SecretArgs.
    "canary-job-env": {"database", "api"},
    # The URL of a callback is shown to its owner, as contract page 10 says; the admin masks it.
    "canary-callback-query": {"database", "api"},
}
#: What is given beside them, and may be nowhere.
NOWHERE: Final = (
    *("canary-password", "canary-stored", "canary-refused", "canary-broken", "canary-malformed"),
    *("canary-uri-password", "canary-callback-password", "canary-registry", "canary-argument"),
    *("canary-retired", "canary-header"),
)


@dataclass
class Stage:
    """What runs, and who asks."""

    cluster: Cluster
    api: Api
    flower: Process
    flower_url: str
    account: Account
    operator: Account
    them: Receivers
    browser: httpx.Client
    monitored: list[str]
    #: Name -> the text that must be found nowhere.
    planted: dict[str, str] = field(default_factory=dict)
    #: Answers that the planting itself got, errors above all.
    answers: list[str] = field(default_factory=list)
    run_ids: list[int] = field(default_factory=list)
    job: str = ""


def ask(stage: Stage, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
    headers = {**stage.account.headers, **more.pop("headers", {})}
    answer = httpx.request(method, stage.api.url + path, json=body, headers=headers, timeout=30, **more)
    stage.answers.append(f"{answer.headers} {answer.text}")
    return answer


def plant(stage: Stage) -> None:
    """Give every kind of secret, in a good and in a bad request."""
    stage.planted |= {name: name for name in (*ALLOWED, *NOWHERE)} | {"flower": FLOWER}
    stage.planted |= {"token": stage.account.token, "operator": stage.operator.token}
    stage.planted["database password"] = (
        urllib.parse.urlsplit(os.environ["DATABASE_URL"]).password or f"no {MARK} here"
    )
    stage.planted["redis password"] = (
        urllib.parse.urlsplit(os.environ["REDIS_URL"]).password or f"no {MARK} here"
    )
    stage.planted["key"] = os.environ["GANTRY_SECRET_KEYS"]
    stage.planted["signing key"] = os.environ["DJANGO_SECRET_KEY"]
    them = stage.them
    task = {
        "taskName": MARK,
        "commands": f"echo {MARK}",
        "env": [{"name": "SECRET", "value": "canary-env"}],
        "resources": {"cpu": 0.1, "mem": 32},
    }
    uri = {"uris": ["http://ann:canary-uri-password@127.0.0.1:9/x?token=canary-uri-query"]}
    for headers in ({}, {"X-Token": stage.account.token}, basic(stage.account.user, stage.account.token)):
        assert ask(stage, "POST", "/v1/tasks", task, headers=headers).status_code == 200
    # A task whose file cannot be fetched: its failure is told without the password.
    answer = ask(stage, "POST", "/v1/tasks", {**task, **uri})
    assert answer.status_code == 200, answer.text
    callback = {"callbackUrl": them.url("/c?key=canary-callback-query")}
    assert ask(stage, "POST", "/v1/tasks", {**task, **callback}).status_code == 200
    plant_secrets(stage)
    plant_job(stage)
    stage.run_ids = list(Run.objects.values_list("pk", flat=True))
    # Idempotent answers hold the token that was made; it is sealed.
    for _ in range(2):
        made = ask(
            stage,
            "POST",
            "/api/v1/tokens",
            {"name": MARK, "scopes": ["read"]},
            headers={"Idempotency-Key": "k"},
        )
        stage.answers.pop()  # the one answer that shows it
        stage.planted["idempotent token"] = made.json()["token"]
    secrets.store(stage.account.tenant_id, MARK, "canary-stored")
    # Refused ones.
    for bad in (
        {"headers": {"Authorization": "Bearer canary-refused"}},
        {"headers": {"Authorization": "", "X-Token": "canary-refused"}},
        {"headers": basic("canary-name", "canary-refused")},
    ):
        assert ask(stage, "POST", "/v1/tasks", task, **bad).status_code == 401
    url = "http://ann:canary-callback-password@127.0.0.1/"
    bad_fields: tuple[dict[str, Any], ...] = (
        {"callbackUrl": url},
        {"callbackUrl": "canary-malformed"},
        {"uris": ["canary-malformed"]},
        {"uris": ["http://ann:canary-malformed/x@h/"], "callbackUrl": "x"},
        {"env": ["canary-malformed"]},
        {"env": "A=canary-malformed"},
        {"env": {"name": "A=canary-malformed", "value": ""}},
        {"envs": [{"value": "canary-malformed"}]},
    )
    for fields in bad_fields:
        assert ask(stage, "POST", "/v1/tasks", {**task, **fields}).status_code == 400, fields
    for header in (url, "canary-header", "http://ann:canary-header/x@127.0.0.1/"):
        headers = {"X-Callback-Url": header}
        assert ask(stage, "POST", "/v1/tasks", task, headers=headers).status_code == 400, header
    assert ask(stage, "POST", "/api/v1/callbacks/test", {"url": url}).status_code == 400
    ask(stage, "POST", "/api/v1/users", {"name": "x", "password": "canary-refused"})
    broken = httpx.post(
        stage.api.url + "/v1/tasks", content=b'{"env": {"A": "canary-broken"', headers=stage.account.headers
    )
    stage.answers.append(broken.text)
    httpx.post(stage.api.url + "/v1/tasks?password=canary-refused", headers=stage.account.headers)


def plant_secrets(stage: Stage) -> None:
    """A callback secret, shown once; a registry's password; a test of a callback."""
    made = ask(stage, "POST", "/api/v1/callbacks/secrets")
    stage.answers.pop()  # the one answer that shows it
    assert made.status_code == 201, made.text
    stage.planted["callback secret"] = made.json()["secret"].removeprefix("whsec_")
    registry = "/api/v1/registries/registry.example:5000"
    good = {"username": "ann", "password": "canary-registry"}
    assert ask(stage, "PUT", registry, good).status_code == 200
    for bad in ({**good, "username": ""}, {**good, "password": ["canary-registry"]}):
        assert ask(stage, "PUT", registry, bad).status_code == 400, bad
    ask(stage, "POST", "/api/v1/callbacks/test", {"url": stage.them.url("/ping?key=canary-callback-query")})


def plant_job(stage: Stage) -> None:
    """A saved job with secret arguments: made, started, changed, and refused."""
    job = {
        "AppName": MARK,
        "Name": MARK,
        "Cmd": "true",
        "Env": ["A=canary-job-env"],
        "SecretArgs": ["canary-argument", "canary-retired"],
    }
    made = ask(stage, "POST", "/api/jobs", job)
    assert made.status_code == 200, made.text
    path = f"/api/jobs/{made.json()['JobId']}"
    started = ask(stage, "POST", f"{path}/start", {"Target": [{"ContainerId": "c", "NodeId": "n1"}]})
    assert started.status_code == 200, started.text
    stage.job = made.json()["JobId"]
    kept = {**job, "SecretArgs": ["*" * len("canary-argument")]}
    assert ask(stage, "PUT", path, kept).status_code == 200
    for wrong in (
        {"SecretArgs": [["canary-argument"]]},
        {"SecretArgs": "canary-argument"},
        {"Env": ["canary-argument"]},
    ):
        assert ask(stage, "POST", "/api/jobs", {**job, **wrong}).status_code == 400


# --- Places ---------------------------------------------------------------------------------------------


def in_redis(stage: Stage) -> str:
    """Every key, every value, and every command since the beginning."""
    client = REDIS.client()
    found = list(stage.monitored)
    for key in client.keys("*"):
        with contextlib.suppress(Exception):
            found += [repr(key), repr(client.dump(key))]
    return "\n".join([*found, MARK if any("PUBLISH" in line for line in stage.monitored) else ""])


def in_database(stage: Stage) -> str:
    """Every row of every table, as a dump has them."""
    found = []
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT to_jsonb(t)::text FROM "{table}" t')
            found += [row[0] for row in cursor.fetchall()]
            if table == "workers_logchunk":
                cursor.execute("SELECT data FROM workers_logchunk")
                found += [bytes(row[0]).decode(errors="replace") for row in cursor.fetchall()]
    return "\n".join(found)


def in_logs(stage: Stage) -> str:
    """What the API, the worker and Flower have written, and the command lines of all of them."""
    text = "\n".join(process.log.read_text(errors="replace") for process in stage.cluster.processes)
    for process in stage.cluster.processes:
        text += Path(f"/proc/{process.pid}/cmdline").read_bytes().decode(errors="replace")
    return text + (MARK if "granian" in text and "run" in text else "")


def in_flower(stage: Stage) -> str:
    """Its pages and its API."""
    with httpx.Client(base_url=stage.flower_url, auth=("gantry", FLOWER), timeout=20) as browser:
        paths = ("/", "/tasks", "/broker", "/api/workers?refresh=1", "/api/tasks", "/api/queues/length")
        found = [browser.get(path).text for path in paths]
        assert re.search(r"redis(\+socket)?://", found[2]), "the page of the broker names it"
        names = list(json.loads(found[3]))
        assert names, "Flower knows no worker"
        pages = [browser.get(f"/worker/{name}") for name in names]
        assert {page.status_code for page in pages} == {200}
        found += [page.text for page in pages]
        found += [browser.get(f"/task/{uuid}").text for uuid in re.findall(r'"uuid": "([^"]+)"', found[4])]
    text = "\n".join(found)
    return text + (MARK if "workers.tasks" in text or "execute" in text else "")


def in_admin(stage: Stage) -> str:
    """Every list, and every page that the lists lead to."""
    seen: dict[str, str] = {}
    waiting = ["/admin/"]
    while waiting and len(seen) < 120:
        path = waiting.pop()
        if path in seen:
            continue
        answer = stage.browser.get(path)
        seen[path] = answer.text
        for link in re.findall(r'href="(/admin/[^"#]*)"', answer.text):
            plain = link.partition("?")[0]
            if plain not in seen and not re.search(r"log(in|out)|password|delete|jsi18n|/add/", plain):
                waiting.append(plain)
    assert len(seen) > 15, sorted(seen)
    return "\n".join(seen.values())


def in_api(stage: Stage) -> str:
    """Everything that can be read, by the owner and by an operator."""
    paths = ["/api/v1/me", "/api/v1/runs", "/api/v1/tokens", "/api/v1/limits", "/api/v1/usage"]
    paths.append("/v1/tasks?taskIds=" + ",".join(map(str, stage.run_ids)))
    paths += [
        "/api/v1/callbacks",
        "/api/v1/callbacks/secrets",
        "/api/v1/callbacks/disabled",
        "/api/v1/registries",
    ]
    paths += [f"/api/v1/callbacks/{pk}" for pk in Callback.objects.values_list("pk", flat=True)]
    paths += ["/api/jobs", "/api/jobs/history"]
    for number in Executor.objects.values_list("number", flat=True):
        paths += [f"/api/jobs/{stage.job}/{what}/{number}" for what in ("inspect", "explain")]
        paths.append(f"/api/jobs/{stage.job}/log/{number}?ContainerId=c")
    for run_id in stage.run_ids:
        paths += [f"/api/v1/runs/{run_id}{what}" for what in ("", "/logs", "/explain")]
    operators = ["/api/v1/tenants", "/api/v1/users", "/api/v1/nodes", "/api/v1/audit", "/metrics"]
    found = [httpx.get(stage.api.url + path, headers=stage.account.headers).text for path in paths]
    found += [httpx.get(stage.api.url + path, headers=stage.operator.headers).text for path in operators]
    return "\n".join([*found, *stage.answers])


def in_callbacks(stage: Stage) -> str:
    """What receivers got, headers and bodies."""
    return "\n".join(f"{item.headers} {item.body.decode()}" for item in stage.them.got)


def in_audit(stage: Stage) -> str:
    """The audit log, as the API and the database have it."""
    answer = httpx.get(stage.api.url + "/api/v1/audit?limit=1000", headers=stage.operator.headers)
    assert answer.status_code == 200
    routes = {item["route"] for item in answer.json()}
    assert {"v1/tasks", "api/jobs"} <= {route.strip("/") for route in routes}, routes
    return answer.text + repr(list(AuditEntry.objects.values())) + MARK


def in_documents(stage: Stage) -> str:
    """The OpenAPI document and its pages, an unknown path, a foreign host."""
    headers = stage.operator.headers
    found = [
        httpx.get(stage.api.url + path, headers=headers).text
        for path in ("/api/schema/", "/api/docs/", "/nothing", "/healthz", "/readyz")
    ]
    found.append(httpx.get(stage.api.url + "/healthz", headers={"Host": "canary-host"}).text)
    return "\n".join([*found, MARK if "openapi" in found[0] else ""])


PLACES: Final[dict[str, Callable[[Stage], str]]] = {
    "redis": in_redis,
    "database": in_database,
    "logs": in_logs,
    "flower": in_flower,
    "admin": in_admin,
    "api": in_api,
    "callbacks": in_callbacks,
    "audit": in_audit,
    "documents": in_documents,
}


@contextlib.contextmanager
def monitor(lines: list[str]) -> Iterator[None]:
    """Collects every command that Redis gets inside the block."""
    client = redis.Redis.from_url(REDIS.url)
    stop = threading.Event()

    def collect() -> None:
        with contextlib.suppress(Exception), client.monitor() as watch:  # type: ignore[no-untyped-call]
            ready.set()
            while not stop.is_set():
                lines.append(str(watch.next_command().get("command")))

    ready = threading.Event()
    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        stop.set()
        REDIS.client().ping()
        thread.join(10)


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

    wait_until(listens, 60, why="Flower listens")
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
        browser = held.enter_context(httpx.Client(base_url=api.url, follow_redirects=True, timeout=30))
        token = browser.get("/admin/login/").cookies["csrftoken"]
        login = {"username": "root", "password": PASSWORD, "csrfmiddlewaretoken": token, "next": "/admin/"}
        assert "Log out" in browser.post("/admin/login/", data=login).text
        stage = Stage(cluster, api, flower, flower_url, account, operator, them, browser, monitored)
        plant(stage)
        ended = [run.pk for run in Run.objects.exclude(kind="exec")]
        wait_final(*ended, timeout_s=60)
        wait_until(lambda: Callback.objects.filter(state="delivered").count() == 2, 60, why="callbacks came")
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


def test_keys_are_changed_while_work_runs_and_waits(cluster: Cluster) -> None:
    """The drill: old key; new and old key, rotated; new key alone. Work that runs and waits goes on."""

    old, new = (Fernet.generate_key().decode() for _ in range(2))
    account = make_account("default", trusted=True)
    manage = [sys.executable, "manage.py"]
    #: Commands of the drill take seconds here: the guard must not think that the node is lost.
    patient = {"GANTRY_NODE_LOST_AFTER_S": "90"}

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
    worker = cluster.node(GANTRY_SECRET_KEYS=old, cpus=0.1, settings=patient)
    running = submit(account.tenant_id, "sleep 6; echo end")
    wait_started(running)
    waiting = submit(account.tenant_id, "echo waited")
    for keys in ((new, old), (new,)):
        worker.terminate()
        worker = cluster.node(GANTRY_SECRET_KEYS=",".join(keys), cpus=0.1, settings=patient)
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
    wait_final(running, waiting, timeout_s=60)
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
