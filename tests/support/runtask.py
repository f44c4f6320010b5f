"""A client of runtask over HTTP, as the known callers use it: forms in, flat JSON out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.support.cluster import Api
from tests.support.fixtures import Account
from tests.support.swift import KEY, Swift
from tests.support.waiting import limit, wait_until


class RuntaskClient:
    """Calls of runtask for one account, over the objects of a Swift's account test."""

    def __init__(self, api: Api, account: Account, swift: Swift) -> None:
        self.http = httpx.Client(base_url=api.url, headers=account.headers, timeout=limit(90), verify=False)
        self.who = {"user": "tester", "key": KEY, "tenant": "test", "authurl": f"{swift.url}/auth/v1.0"}

    def __enter__(self) -> RuntaskClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def run(self, **fields: Any) -> str:
        """Submit a job; returns its id."""
        answer = self.http.post("/runtask/", data={**self.who, **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def job(self, job_id: str, wait: float = 0) -> dict[str, Any]:
        answer = self.http.get("/job/", params={"job_id": job_id, "wait": wait})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ended(self, job_id: str, timeout_s: float = 20.0) -> dict[str, Any]:
        """Wait for the end of a job, as the server offers it."""
        wait_until(
            lambda: self.job(job_id, 5)["job_done"],
            timeout_s,
            0,
            "the job ends",
            lambda: (self.job(job_id), self.explain(job_id)),
        )
        return self.job(job_id)

    def good(self, job_id: str) -> str:
        """The output of a job that has to end well."""
        found = self.ended(job_id)
        assert found["job_error"] is False, found
        return str(found["process_out"])

    def cancel(self, job_id: str) -> bool:
        answer = self.http.post("/canceljob/", data={"job_id": job_id})
        assert answer.status_code == 200, answer.text
        return bool(answer.json()["prevstatus"])

    def explain(self, job_id: str) -> str:
        """All reasons why a job is where it is."""
        (run,) = self.http.get("/api/v1/runs", params={"family": "runtask", "owner": job_id}).json()
        return str(self.http.get(f"/api/v1/runs/{run['id']}/explain").json()["reasons"])


def define(folder: Path, name: str, script: str, define: str = "{}") -> None:
    """Write a job definition."""
    (folder / name).mkdir(parents=True)
    (folder / name / "job.sh").write_text(script)
    (folder / name / "job_define.json").write_text(define)
