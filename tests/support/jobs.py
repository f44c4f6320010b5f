"""Saved jobs as a program of the family uses them, over HTTP, and containers that are there for them."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.cluster import Api
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.images import BUSYBOX
from tests.support.waiting import limit, wait_until
from workers.models import Tenant

ENDED = ("FINISHED", "CREATE_FAILED", "RUNNING_FAILED")


def open_all(account: Account) -> None:
    """The tenant may execute in every container, as that of a fresh installation may."""
    Tenant.objects.filter(pk=account.tenant_id).update(policy={"exec_targets": ["all"]})


def box(engine: Engine, name: str = "", *, image: str = BUSYBOX, command: Any = None, **options: Any) -> str:
    """A running container; returns its full id. ``options`` are of the host config but ``labels``."""
    api = engine.client.api
    labels = options.pop("labels", None)
    host = api.create_host_config(init=True, **options)
    command = command or ["sleep", "100000"]
    made = api.create_container(
        image, command, name=name or None, labels=labels, host_config=host, stop_signal="SIGKILL"
    )
    api.start(made["Id"])
    return str(made["Id"])


class JobClient:
    """Calls of /api/jobs for one account."""

    def __init__(self, api: Api, account: Account) -> None:
        self.http = httpx.Client(base_url=api.url, headers=account.headers, timeout=limit(60), verify=False)

    def __enter__(self) -> JobClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def ok(self, method: str, path: str, status: int = 200, **more: Any) -> Any:
        answer = self.http.request(method, f"/api/jobs{path}", **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    def save(self, cmd: str, name: str = "job", **fields: Any) -> str:
        """A new job; returns its id."""
        body = {"AppName": "app", "Name": name, "Cmd": cmd, **fields}
        return str(self.ok("POST", "", json=body)["JobId"])

    def start(self, job: str, *targets: tuple[str, str], **headers: str) -> str:
        """Start it in (container, node); returns the executor's id."""
        sent = [{"ContainerId": container, "NodeId": node} for container, node in targets]
        started = self.ok("POST", f"/{job}/start", json={"Target": sent}, headers=headers)
        return str(started["Executors"][-1])

    def inspect(self, job: str, executor: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ok("GET", f"/{job}/inspect/{executor}")
        return found

    def results(self, job: str, executor: str) -> list[dict[str, Any]]:
        return list(self.inspect(job, executor)["Result"])

    def statuses(self, job: str, executor: str) -> list[str]:
        return [item["Status"] for item in self.results(job, executor)]

    def ended(self, job: str, executor: str, timeout_s: float = 90.0) -> list[dict[str, Any]]:
        """Wait for the end of every target; the results."""
        wait_until(
            lambda: all(found in ENDED for found in self.statuses(job, executor)),
            timeout_s,
            0.1,
            "every target ends",
            lambda: [(r["Status"], r.get("E")) for r in self.results(job, executor)],
        )
        return self.results(job, executor)

    def log(self, job: str, executor: str, container: str, node: str = "") -> bytes:
        query = {"ContainerId": container, **({"NodeId": node} if node else {})}
        answer = self.http.get(f"/api/jobs/{job}/log/{executor}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.content
