"""What the tests of the workqueue's calls share: users of two tenants, sites, jobs as the book leaves them.

Elements, attempts and listings are written as rows: who makes them is tested elsewhere.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.contracts.tasks import conftest as tasks
from workers.models import Node
from workers.tenants import identity
from workqueue.models import Element, ElementAttempt, Job, ListingPart, Site
from workqueue.models.jobs import Status, Type

V10, V11 = "/workqueue/api/v1.0", "/workqueue/api/v1.1"
ENDPOINT: dict[str, Any] = {"protocol": "SFTP", "host": "files.example", "port": 22, "path": "/"}
LOG = "Job run on host: node-a, returncode: 0, timestamp: 2012-03-21T13:35:00"
#: name, mode, size, mtime, nlink, uid, gid, atime, ctime; as a report has them.
FILE = (33188, 10, 1332336900, 1, 1000, 1001, 1332336901, 1332336902)

#: v1.1's entry of a file called so.
LATER_FILE = {
    "st_mode": FILE[0],
    "st_nlink": FILE[3],
    "st_uid": FILE[4],
    "st_gid": FILE[5],
    "st_size": FILE[1],
    "st_atime": FILE[6],
    "st_mtime": FILE[2],
    "st_ctime": FILE[7],
}


class Api(tasks.Api):
    """A client with short forms for the family; paths are below v1.0 unless they say so."""

    def send(
        self, method: str, path: str, body: bytes | str = b"", content_type: str = "", **headers: str
    ) -> Any:
        at = "" if path.startswith(("/workqueue", "/api")) else V10
        return super().send(method, at + path, body, content_type, **headers)

    def put(self, path: str, body: object) -> Any:
        return self.send("PUT", path, json.dumps(body), "application/json")

    def delete(self, path: str) -> Any:
        return self.send("DELETE", path)

    def site(self, name: str = "cluster", **fields: Any) -> int:
        """Make a site; returns its id."""
        found: int = ok(self.post("/sites", {"name": name, "endpoints": [ENDPOINT], **fields}), 201)["id"]
        return found

    def job(self, kind: str = "list", **fields: Any) -> dict[str, Any]:
        """Register a job; returns it."""
        found: dict[str, Any] = ok(self.post(f"/{kind}", {"src_filepath": "somefile", **fields}))
        return found


def body(answer: Any) -> Any:
    """The JSON of an answer, streamed or not."""
    return json.loads(answer.getvalue() if answer.streaming else answer.content)


def ok(answer: Any, status: int = 200) -> Any:
    """The JSON of an answer that has to be this one."""
    assert answer.status_code == status, answer.getvalue()
    assert answer.headers["Content-Type"] == "application/json"
    return body(answer)


def error(answer: Any, status: int) -> str:
    """The message of an error answer; nothing else may be in it but the status."""
    found = ok(answer, status)
    assert set(found) == {"error"}
    assert set(found["error"]) == {"code", "message"}
    assert found["error"]["code"] == status
    assert isinstance(found["error"]["message"], str)
    assert found["error"]["message"]
    return str(found["error"]["message"])


def member(tenant: str, user: str, *scopes: str) -> Api:
    """A client with a new user's token for a tenant, which is made when it is not there."""
    made = tasks.member(tenant, user, *scopes)
    return Api(made.tenant, made.token)


@pytest.fixture(autouse=True)
def _keys(settings: Any, remembered: None) -> None:
    settings.GANTRY_SECRET_KEYS = [Fernet.generate_key().decode()]


@pytest.fixture
def api(db: None) -> Iterator[Api]:
    """A member of the tenant 10002, with the scopes read and submit."""
    identity.forget()
    yield member("10002", "ann")
    identity.forget()


@pytest.fixture
def colleague(api: Api) -> Api:
    """Another member of the same tenant."""
    return member("10002", "cid")


@pytest.fixture
def stranger(api: Api) -> Api:
    """A member of another tenant."""
    return member("10003", "bob")


@pytest.fixture
def operator(api: Api) -> Api:
    """An operator in the first tenant."""
    return member("10002", "oda", "read", "submit", "operate")


@pytest.fixture
def site(api: Api) -> int:
    """A site of the first member's tenant."""
    return api.site(visibility="tenant")


def node(*folders: str, name: str = "node-a", **more: Any) -> Node:
    """A node that offers folders for LOCAL sites."""
    return Node.objects.create(
        name=name,
        detached=False,
        attributes={f"local:{folder}": "yes" for folder in folders},
        runtimes=["transfer"],
        **dict.fromkeys(("cpu_m_configured", "cpu_m_total", "mem_mb_configured", "mem_mb_total"), 1000),
        **more,
    )


class Filled:
    """A job whose rows the test writes, as the book would."""

    def __init__(self, job_id: int) -> None:
        self.job = Job.objects.get(pk=job_id)
        Element.objects.filter(job=self.job).delete()

    def element(
        self,
        number: int,
        kind: Type,
        status: Status,
        *logs: tuple[Status, str],
        **fields: Any,
    ) -> Element:
        """An element with its ended attempts (status, log)."""
        row = Element.objects.create(
            job=self.job,
            number=number,
            type=kind,
            status=status,
            attempts=len(logs),
            **{"src_filepath": f"dir/f{number}", "max_tries": 2, **fields},
        )
        for attempt, (how, log) in enumerate(logs, 1):
            ElementAttempt.objects.create(
                job=self.job, number=number, attempt=attempt, status=how, log=log,
                returncode=0 if how == Status.DONE else 1, host="node-a", told_at="2012-03-21T13:35",
            )  # fmt: skip
        return row

    def listing(self, number: int, *lines: dict[str, Any], attempt: int = 1, pieces: int = 1) -> None:
        """What an attempt of a LIST reported, in so many pieces."""
        count, each = 0, -(-len(lines) // pieces)
        for offset in range(0, len(lines), each):
            part = lines[offset : offset + each]
            told = sum(len(line["e"]) for line in part)
            text = "".join(json.dumps({"r": "folder", "n": number, **line}) + "\n" for line in part)
            ListingPart.objects.create(
                job=self.job, number=number, attempt=attempt, report=offset * 1000, names=told,
                data=zlib.compress(text.encode()),
            )  # fmt: skip
            count += told
        ended = ElementAttempt.objects.filter(job=self.job, number=number, attempt=attempt)
        ended.update(listing_count=count)

    def count(self, **counts: int) -> None:
        """The job's counters: num_done=2..."""
        for name in ("new", "submitted", "running", "done", "failed"):
            setattr(self.job, f"num_{name}", counts.get(f"num_{name}", 0))
        self.job.elements = sum(counts.values())
        self.job.save()


def folder(name: str, *entries: Sequence[Any], first: bool = True, last: bool = True) -> dict[str, Any]:
    """A report's line of a folder; entries are names, or lists of all nine values."""
    told = [[each, *FILE] if isinstance(each, str) else list(each) for each in entries]
    return {"d": name, "e": told, **({"first": True} if first else {}), **({"last": True} if last else {})}


def site_row(site_id: int) -> Site:
    return Site.objects.get(pk=site_id)


def at(filled: Filled, rest: str = "") -> str:
    """A path below the job's."""
    return f"/jobs/{filled.job.pk}{rest}"
