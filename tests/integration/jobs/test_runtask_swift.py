"""Submissions against a real Swift: what is checked while the client waits, and what an error then says."""

from __future__ import annotations

import http.client
import time
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from cryptography.fernet import Fernet

from jobs.models import RuntaskJob
from tests.contracts.runtask.conftest import Api, error, member, ok, spec_of
from tests.support.swift import KEY, Swift
from workers.models import Run, Secret
from workers.tenants import identity, tenancy

ODD = (
    *(
        "my name",
        "my%20name",
        "100%",
        "a?b#c",
        "e\u0301te\u0301.fa",
        "x/y//z",
        "$(touch pwned);`id`",
        "a'\"b",
    ),
    *("..", "a/../b", "a\nb", "+", "&=;"),
)


@pytest.fixture
def api(db: None, settings: Any) -> Api:
    settings.GANTRY_SECRET_KEYS = [Fernet.generate_key().decode()]
    identity.forget()
    made = member("10002", "ann")
    tenancy.update_tenant("10002", opened={"runtask_cm": True})
    return made


def who(swift: Swift, **more: Any) -> dict[str, Any]:
    return {"user": "tester", "key": KEY, "tenant": "test", "authurl": f"{swift.url}/auth/v1.0", **more}


def put(swift: Swift, path: str) -> None:
    """Store something under a name that HTTP clients would tidy: a/../b."""
    answer = swift.ask("GET", "/auth/v1.0", headers={"X-Auth-User": "test:tester", "X-Auth-Key": KEY})
    connection = http.client.HTTPConnection("127.0.0.1", swift.port, timeout=60)
    place = urlsplit(answer.headers["X-Storage-Url"]).path
    connection.request("PUT", f"{place}/{path}", b"x", {"X-Auth-Token": answer.headers["X-Auth-Token"]})
    assert connection.getresponse().status == 201
    connection.close()


def refused(api: Api, sent: dict[str, Any], status: int = 502) -> str:
    kind, what = error(api.form("/runtask/", sent), status)
    assert kind == {502: "SwiftError", 400: "BadRequest"}[status]
    assert KEY not in what
    assert not RuntaskJob.objects.exists()
    assert not Run.objects.exists()
    assert not Secret.objects.exists()
    return what


def test_what_is_there_is_accepted(api: Api, swift: Swift) -> None:
    holder = swift.container()
    swift.put(f"{holder}/a", b">a\nAC\n")
    sent = who(swift, container_name=holder, file_name="a")
    for spelling in ({}, {"auth_version": "1"}, {"user": "test:tester", "tenant": "None-such"}):
        ok(api.form("/runtask/", {**sent, **spelling}))
    ok(api.form("/runtask/", who(swift, cm="true", output_file="never-seen/x")))


def test_credentials_that_are_wrong(api: Api, swift: Swift) -> None:
    for wrong in ({"key": "wrong"}, {"user": "nobody"}, {"tenant": "elsewhere"}):
        assert "401 Unauthorized" in refused(api, who(swift, cm="true", **wrong))
    assert "400 Bad Request" in refused(
        api, who(swift, cm="true", authurl=f"{swift.url}/auth/v9.9", auth_version="1")
    )


def test_what_is_missing_is_named(api: Api, swift: Swift) -> None:
    holder = swift.container()
    swift.put(f"{holder}/a", b"x")
    first = {**who(swift), "container_name": "never-made", "file_name": "a"}
    assert "404 Not Found: container never-made" in refused(api, first)
    assert "404 Not Found: container never-made" in refused(api, {**first, "wait_for_input": "60"}), (
        "for its output"
    )
    what = refused(api, {**first, "container_name": holder, "file_name": "b"})
    assert f"404 Not Found: {holder}/b" in what
    assert "wait_for_input" in what
    assert f"{holder}/c d" in refused(api, who(swift, cm="true", input_file=f"{holder}/a|c d"))
    assert "container never-made" in refused(api, who(swift, cm="true", input_file="never-made/a"))
    assert "runtask" in refused(api, who(swift, file_name="a")), "the server's own container"
    ok(api.form("/runtask/", who(swift, cm="true", input_file="never-made/a", wait_for_input="60")))
    ok(api.form("/runtask/", {**first, "container_name": holder, "file_name": "b", "wait_for_input": "60"}))


def test_every_name_is_found(api: Api, swift: Swift) -> None:
    holder = swift.container()
    for name in ODD:
        put(swift, f"{holder}/{quote(name)}")
    for name in ODD:
        job_id = ok(api.form("/runtask/", {**who(swift), "container_name": holder, "file_name": name}))[
            "job_id"
        ]
        assert spec_of(job_id)["inputs"][0]["url"] == f"swift://{holder}/{quote(name)}"
    job_id = ok(api.post("/runtask/", who(swift, cm="true", input_file=f"{holder}/{'|'.join(ODD)}")))[
        "job_id"
    ]
    assert len(spec_of(job_id)["inputs"]) == len(ODD)


def test_an_address_that_the_guard_refuses(api: Api, swift: Swift, settings: Any) -> None:
    settings.GANTRY_SWIFT_ALLOW_NETWORKS = []
    assert "GANTRY_SWIFT_ALLOW_NETWORKS" in refused(api, who(swift, cm="true"), 400)


def test_a_server_that_is_no_swift_or_is_not_there(api: Api, swift: Swift) -> None:
    closed = who(swift, cm="true", authurl="http://127.0.0.1:1/auth/v1.0")
    assert refused(api, closed, 400), "a port that no web server has"
    assert refused(api, {**closed, "authurl": "http://127.0.0.1:45999/auth/v1.0"})


@pytest.mark.daemons
def test_a_swift_that_falls_silent(api: Api, mortal_swift: Swift, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a request that waits for ever, and one that makes a job whose credentials nobody checked."""
    monkeypatch.setattr("jobs.runtask.swift.WITHIN_S", 1.5)
    begun = time.monotonic()
    with mortal_swift.frozen():
        refused(api, who(mortal_swift, cm="true"))
    assert time.monotonic() - begun >= 1
    ok(api.form("/runtask/", who(mortal_swift, cm="true")))
