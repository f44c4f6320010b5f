"""Where canary secrets are looked for: a new place is one function in ``PLACES``.

What the places show is proved by a mark that must be found in each.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import redis
from django.db import connection

from jobs.models import Executor
from tests.acceptance.canaries import FLOWER, MARK, Stage
from tests.support.session import REDIS
from tests.support.waiting import limit, wait_until
from workers.models import AuditEntry, Callback


def in_redis(stage: Stage) -> str:
    """Every key, every value, and every command since the beginning."""
    client = REDIS.client(60.0)
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


def _page(browser: httpx.Client, path: str) -> str:
    """The page, or "" when the one whom it is about did not answer in time."""
    answer = browser.get(path)
    return answer.text if answer.status_code == 200 else ""


def in_flower(stage: Stage) -> str:
    """Its pages and its API."""
    with httpx.Client(base_url=stage.flower_url, auth=("gantry", FLOWER), timeout=limit(60)) as browser:
        paths = ("/", "/tasks", "/broker", "/api/workers?refresh=1", "/api/tasks", "/api/queues/length")
        found = [browser.get(path).text for path in paths]
        assert re.search(r"redis(\+socket)?://", found[2]), "the page of the broker names it"
        # It asks the workers each time, and gives them a second to answer.
        refresh = "/api/workers?refresh=1"
        names = wait_until(lambda: list(browser.get(refresh).json()), why="Flower knows a worker")
        found += [
            str(wait_until(partial(_page, browser, f"/worker/{name}"), why=f"Flower asks {name}"))
            for name in names
        ]
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


def _get(stage: Stage, path: str, headers: dict[str, str]) -> httpx.Response:
    return httpx.get(stage.api.url + path, headers=headers, timeout=limit(60))


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
    found = [_get(stage, path, stage.account.headers).text for path in paths]
    found += [_get(stage, path, stage.operator.headers).text for path in operators]
    return "\n".join([*found, *stage.answers])


def in_callbacks(stage: Stage) -> str:
    """What receivers got, headers and bodies."""
    return "\n".join(f"{item.headers} {item.body.decode()}" for item in stage.them.got)


def in_audit(stage: Stage) -> str:
    """The audit log, as the API and the database have it."""
    answer = _get(stage, "/api/v1/audit?limit=1000", stage.operator.headers)
    assert answer.status_code == 200
    routes = {item["route"] for item in answer.json()}
    assert {"v1/tasks", "api/jobs"} <= {route.strip("/") for route in routes}, routes
    return answer.text + repr(list(AuditEntry.objects.values())) + MARK


def in_documents(stage: Stage) -> str:
    """The OpenAPI document and its pages, an unknown path, a foreign host."""
    headers = stage.operator.headers
    found = [
        _get(stage, path, headers).text
        for path in ("/api/schema/", "/api/docs/", "/nothing", "/healthz", "/readyz")
    ]
    found.append(_get(stage, "/healthz", {"Host": "canary-host"}).text)
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
    # Without a time limit, which is 5 s if nothing is said: a busy machine is silent for longer.
    client = redis.Redis.from_url(REDIS.url, socket_timeout=None)
    stop = threading.Event()
    failed: list[Exception] = []

    def collect() -> None:
        try:
            with client.monitor() as watch:  # type: ignore[no-untyped-call]
                ready.set()
                while not stop.is_set():
                    lines.append(str(watch.next_command().get("command")))
        except Exception as error:
            failed.append(error)

    ready = threading.Event()
    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    assert ready.wait(limit(60))
    try:
        yield
    finally:
        stop.set()
        REDIS.client(60.0).ping()
        thread.join(limit(60))
    assert not failed, failed
