"""A client of the real API over HTTP, as a program of the tasks family would use it."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx

from tests.support.cluster import Api
from tests.support.fixtures import Account
from tests.support.waiting import limit

logging.getLogger("httpx").setLevel(logging.WARNING)  # a line per request buries the rest


class TaskClient:
    """POST and GET /v1/tasks for one account over kept-alive connections; usable from any thread."""

    def __init__(self, api: Api, account: Account, timeout_s: float = 60.0) -> None:
        # verify=False: it is plain HTTP, and loading certificates would cost more than the test.
        self.http = httpx.Client(
            base_url=api.url, headers=account.headers, timeout=limit(timeout_s), verify=False
        )

    def __enter__(self) -> TaskClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def post(self, command: str, *, key: str = "", name: str = "test", **body: Any) -> httpx.Response:
        """Submit a small command task; the answer as it is."""
        headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
        return self.http.post("/v1/tasks", content=task_body(command, name=name, **body), headers=headers)

    def submit(self, command: str, **more: Any) -> int:
        """Submit a small command task; returns its taskId."""
        answer = self.post(command, **more)
        assert answer.status_code == 200, answer.text
        return task_id(answer)

    def explain(self, run_id: int) -> dict[str, Any]:
        answer = self.http.get(f"/v1/tasks/{run_id}/explain")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Status and body of /readyz."""
        answer = self.http.get("/readyz")
        return answer.status_code, answer.json()


def task_body(command: str, *, name: str = "test", **body: Any) -> bytes:
    """The request's body of a small command task; the same bytes for the same task."""
    resources = {"cpu": 0.1, "mem": 256}
    return json.dumps({"taskName": name, "commands": command, "resources": resources, **body}).encode()


def task_id(answer: httpx.Response) -> int:
    """The taskId of a 2xx answer."""
    return int(answer.json()["data"]["taskId"])
