"""Canary secrets: what is given to the system, in good and in bad requests, and where it may be found.

A new kind of secret is one line in ``plant`` (what is given) and, where it may be found, in ``ALLOWED``.
"""

from __future__ import annotations

import os
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from tests.integration.config.test_browsers import basic
from tests.support.cluster import Api, Cluster, Process
from tests.support.fixtures import Account
from tests.support.receivers import Receivers
from tests.support.waiting import limit
from workers import secrets
from workers.models import Run

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
    *("canary-retired", "canary-header", "canary-swift", "canary-site"),
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
    answer = httpx.request(
        method, stage.api.url + path, json=body, headers=headers, timeout=limit(60), **more
    )
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
    plant_runtask(stage)
    plant_site(stage)
    stage.run_ids = list(Run.objects.values_list("pk", flat=True))
    # The first answer holds the token that was made, its repetition does not.
    token = {"name": MARK, "scopes": ["read"]}
    made, again = (
        ask(stage, "POST", "/api/v1/tokens", token, headers={"Idempotency-Key": "k"}) for _ in range(2)
    )
    del stage.answers[-2]  # the one answer that shows it
    stage.planted["idempotent token"] = made.json()["token"]
    assert again.status_code == 409
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
        stage.api.url + "/v1/tasks",
        content=b'{"env": {"A": "canary-broken"',
        headers=stage.account.headers,
        timeout=limit(60),
    )
    stage.answers.append(broken.text)
    refused = "/v1/tasks?password=canary-refused"
    httpx.post(stage.api.url + refused, headers=stage.account.headers, timeout=limit(60))


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


def plant_site(stage: Stage) -> None:
    """Credentials at a site: given, replaced, and refused in each form."""
    sites = "/workqueue/api/v1.0/sites"
    site = {"name": MARK, "endpoints": [{"protocol": "SSH", "host": "files.example"}]}
    made = ask(stage, "POST", sites, site)
    assert made.status_code == 201, made.text
    path = f"{sites}/{made.json()['id']}"
    pem = "-----BEGIN CERTIFICATE-----\ncanary-site"
    good = {"username": "ann", "password": "canary-site", "key": "-----BEGIN canary-site", "proxy": pem}
    for _ in range(2):
        assert ask(stage, "PUT", f"{path}/credentials", good).status_code == 200
    for name in ("key", "proxy"):
        assert ask(stage, "PUT", f"{path}/credentials", {name: "canary-site"}).status_code == 400
    for wrong in ({"password": ["canary-site"]}, {"key": {"x": "canary-site"}}, {"canary-site": 1}):
        assert ask(stage, "PUT", f"{path}/credentials", wrong).status_code == 400
    address = {"protocol": "SWIFT", "options": {"auth_url": "http://ann:canary-site@127.0.0.1/"}}
    assert ask(stage, "POST", sites, {**site, "endpoints": [address]}).status_code == 400
    for each in (path, sites):
        assert ask(stage, "GET", each).status_code == 200


def plant_runtask(stage: Stage) -> None:
    """The key of a Swift: refused in each form, and refused by the guard. One that is accepted is looked for
    by tests/acceptance/test_runtask.py, which has a Swift."""
    who = {"user": "ann", "tenant": MARK, "key": "canary-swift", "authurl": "http://127.0.0.1:8/auth/v1.0"}
    for wrong in (
        {},
        {"authurl": "canary-swift"},
        {"authurl": "http://ann:canary-swift@127.0.0.1/"},
        {"key": ["canary-swift"]},
        {"key": "canary-swift\n"},
        {"tenant": ""},
    ):
        assert ask(stage, "POST", "/runtask/", {**who, **wrong}).status_code == 400, wrong
        form = httpx.post(
            f"{stage.api.url}/runtask/",
            data={**who, **wrong},
            headers=stage.account.headers,
            timeout=limit(60),
        )
        stage.answers.append(f"{form.headers} {form.text}")
        assert form.status_code == 400, form.text
