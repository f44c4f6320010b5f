"""A client of the workqueue over HTTP, trees with names that hurt, and what two trees have in common."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support.cluster import Api
from tests.support.fixtures import Account
from tests.support.sshd import Sshd
from tests.support.waiting import limit, wait_until

ROOT: Final = "/workqueue/api/v1.0"
#: Names of files; of each kind that a shell, a URL or a listing stumbles over.
NAMES: Final = (
    b"plain",
    b"two words",
    b"'quoted' \"twice\"",
    "composed \u00e9".encode(),
    "decomposed e\u0301".encode(),
    b"-rf",
    b"line\nend",
    b"a b",
    b"a%20b",
    b"[x]*",
    b"end ",
    b"back\\slash",
    b"what?#100%",
    b"\xff is no UTF-8",
)


class WorkqueueClient:
    """Calls for one account. ``sites``: name -> id of what was made."""

    def __init__(self, api: Api, account: Account) -> None:
        self.http = httpx.Client(
            base_url=api.url, headers={"X-Token": account.token}, timeout=limit(60), verify=False
        )

    def __enter__(self) -> WorkqueueClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def call(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """A call below the family's root; the parsed answer."""
        answer = self.http.request(method, f"{ROOT}{path}", json=body)
        assert answer.status_code == status, (method, path, answer.text)
        return answer.json() if answer.content else None

    def site(self, name: str, *endpoints: Mapping[str, Any], **more: Any) -> int:
        """Make a site; its id."""
        body = {"name": name, "visibility": "tenant", "endpoints": list(endpoints), **more}
        return int(self.call("POST", "/sites", body, 201)["id"])

    def local(self, name: str, folder: Path, **more: Any) -> int:
        """A folder of the node as a site."""
        return self.site(name, {"protocol": "LOCAL", "path": str(folder)}, **more)

    def sftp(self, name: str, sshd: Sshd, path: str = "") -> int:
        """Files of an SSH server as a site, with the account's key."""
        reach = sshd.reach(path=path or str(sshd.files))
        site = self.site(
            name,
            {"protocol": "SFTP", "host": reach.host, "port": reach.port, "path": reach.path},
            host_keys=list(reach.host_keys),
        )
        given = {"username": reach.credentials.username, "key": reach.credentials.key}
        self.call("PUT", f"/sites/{site}/credentials", given)
        return site

    def post(
        self, kind: str, source: int, path: str, target: int | None = None, to: str = "", **more: Any
    ) -> int:
        """Register a job; its id."""
        body: dict[str, Any] = {"src_siteid": source, "src_filepath": path, **more}
        if target is not None:
            body["dst_siteid"] = target
        if to:
            body["dst_filepath"] = to
        return int(self.call("POST", f"/{kind}", body)["id"])

    def status(self, job: int) -> str:
        return str(self.call("GET", f"/jobs/{job}/status")["status"])

    def ended(self, job: int, timeout_s: float = 60.0) -> str:
        """Wait for the end of a job; DONE or FAILED."""
        wait_until(
            lambda: self.status(job) in ("DONE", "FAILED"),
            timeout_s,
            0.05,
            f"job {job} ends",
            lambda: (self.call("GET", f"/jobs/{job}/progress"), self.call("GET", f"/jobs/{job}/explain")),
        )
        return self.status(job)

    def post_and_wait(self, kind: str, *given: Any, **more: Any) -> int:
        """A job that has ended, well or not."""
        job = self.post(kind, *given, **more)
        self.ended(job)
        return job

    def done(self, kind: str, *given: Any, **more: Any) -> int:
        """A job that has to end well."""
        job = self.post(kind, *given, **more)
        assert self.ended(job) == "DONE", self.logs(job)
        return job

    def elements(self, job: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", f"/jobs/{job}/elements")
        return found

    def logs(self, job: int) -> str:
        """Of the last attempts of its elements, as far as they failed; else all."""
        outputs = self.call("GET", f"/jobs/{job}/output")
        failed = [item for item in outputs if item["status"] == "FAILED"]
        return "\n".join(f"{item['elementid']}: {item['log']}" for item in failed or outputs)


def grow(folder: Path, *, names: Iterable[bytes] = NAMES, levels: int = 3, files: int = 0) -> None:
    """A tree: these names at each level, an empty folder, and ``files`` more in the last folder."""
    here = os.fsencode(folder)
    os.makedirs(here, exist_ok=True)  # noqa: PTH103 (bytes)
    for level in range(levels):
        for number, name in enumerate(names):
            _write(here + b"/" + name, name * (number * 7 + 1))
        _write(here + b"/nothing", b"")
        os.makedirs(here + b"/empty folder", exist_ok=True)  # noqa: PTH103
        here += b"/level %d" % level
        os.makedirs(here, exist_ok=True)  # noqa: PTH103
    for number in range(files):
        _write(here + b"/%05d" % number, b"%d" % number * (number % 50))


def _write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(content)


def shape(folder: Path) -> dict[bytes, str]:
    """{relative path: digest of a file's content; "/" of a folder; "-> where" of a link}."""
    top = os.fsencode(folder)
    found: dict[bytes, str] = {}
    for here, folders, files in os.walk(top):
        for name in folders + files:
            path = here + b"/" + name
            if os.path.islink(path):  # noqa: PTH114
                found[path[len(top) + 1 :]] = f"-> {os.readlink(path)!r}"  # noqa: PTH115
            elif name in folders:
                found[path[len(top) + 1 :]] = "/"
            else:
                with open(path, "rb") as file:  # noqa: PTH123
                    found[path[len(top) + 1 :]] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
