"""Registering jobs: the seed's examples for each call, field by field, and everything that is refused."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.contracts.workqueue.conftest import V10, V11, Api, body, error, member, ok, site_row
from tests.support.containers import open_policy
from workers.tenants import audit, identity
from workqueue.jobs.examples import BODIES, registered
from workqueue.models import Element, Job, Site

#: Types of a body that may be declared.
KINDS = (
    "",
    "application/json",
    "application/x-www-form-urlencoded",
    "text/plain",
    "multipart/form-data",
)
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}")
WRONG: dict[str, list[Any]] = {
    "type": [5, -1, "9", "MOVE", True, [], 1.5, ""],
    "src_siteid": ["x", -1, 1.5, True, [1], 2**63],
    "src_filepath": ["", 5, ["a"], "..", "/..", "a/../../b", "~/..", "/a/../../b"],
    "max_tries": [0, 101, -1, "many", 1.5, True],
    "priority": [-1, 10, "high", False],
    "protocol": [3, "FTP", "", True, {}],
    "extra_opts": ["x", [], 5],
}
WRONG_OPTIONS: dict[str, list[Any]] = {
    "depth": [-2, "deep", True, 1.5],
    **{name: ["yes", 1, []] for name in ("overwrite", "parent", "parents", "preserve", "escaped")},
    "checksum": ["crc", 5],
    "timeout": [0, -1, "soon", True],
    "permissions": ["rwx", "0999", 9, True],
    **{name: [0, "x", False] for name in ("limit", "nbstreams")},
    "verbosity": ["loud"],
}


def test_the_seeds_calls(api: Api) -> None:
    """The sites have the seed's numbers; what the service gives is compared by its form."""
    for number in (12, 14):
        Site.objects.create(
            pk=number, tenant=api.tenant, name=f"s{number}", visibility="tenant", endpoints=[]
        )
    for at, later in ((V10, False), (V11, True)):
        for name, sent in BODIES.items():
            found = ok(api.post(f"{at}/{name}", sent))
            expected = registered(name, later=later)
            assert list(found) == list(expected)
            given = ("id", "user_id", "log_uid", "timestamp")
            assert {k: v for k, v in found.items() if k not in given} == {
                k: v for k, v in expected.items() if k not in given
            }
            assert isinstance(found["id"], int)
            assert isinstance(found["user_id"], int)
            assert re.fullmatch(r"\w{32}", found["log_uid"])
            assert STAMP.fullmatch(found["timestamp"])
    assert Job.objects.count() == 12
    assert Element.objects.count() == 12


def test_the_three_credentials(api: Api, site: int) -> None:
    sent = {"src_siteid": site, "src_filepath": "f"}
    basic = base64.b64encode(f"ann:{api.token}".encode()).decode()
    token, api.token = api.token, ""
    for headers in (
        {"X_Token": token},
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"Basic {basic}"},
    ):
        ok(api.post("/list", sent, **headers))
        assert ok(api.get("/jobs", **headers))
    error(api.post("/list", sent), 401)
    error(api.post("/list", sent, X_Token="gnt_of_nobody"), 401)


def test_spellings_of_a_type(api: Api, site: int) -> None:
    sent = {"src_siteid": site, "src_filepath": "a", "dst_siteid": site, "dst_filepath": "b"}
    for given in (1, "1", "COPY", "copy", "Copy"):
        assert ok(api.post("/jobs", {**sent, "type": given}))["type"] == "COPY"


def test_spellings_of_a_protocol(api: Api, site: int) -> None:
    spellings: dict[str, list[Any]] = {
        "GRIDFTP": [None, 0, "0", "gridftp"],
        "SSH": [1, "ssh", "SFTP"],
        "DUMMY": [2, "2", "dummy"],
        "S3": ["s3"],
        "WEBDAV": ["WebDAV"],
        **{name: [name] for name in ("LOCAL", "SWIFT", "XROOTD")},
    }
    for shown, values in spellings.items():
        for given in values:
            assert api.job(src_siteid=site, protocol=given)["protocol"] == shown


def test_only_the_documented_fields_count(api: Api, site: int) -> None:
    sent = {"id": 7, "user_id": 7, "status": "DONE", "timestamp": "x", "log_uid": "x", "attempts": 9}
    more = {"type": "COPY", "dst_siteid": 99, "dst_filepath": "/x", "callback_url": "x", "pull": True}
    made = api.job("list", src_siteid=str(site), **sent, **more)
    assert (made["type"], made["status"]) == ("LIST", "SUBMITTED")
    assert not {"dst_siteid", "dst_filepath", "attempts"} & set(made)
    job = Job.objects.get()
    assert (job.pk, job.user.get_username() if job.user else "", job.pull) == (made["id"], "ann", False)
    renamed = api.job("rename", src_siteid=site, dst_filepath="b", dst_siteid=99, type=0)
    assert (renamed["type"], renamed["dst_siteid"]) == ("RENAME", site)


def test_what_is_kept_of_a_job(api: Api, site: int) -> None:
    options = {"depth": 1, "overwrite": True, "s_cred_file": "x", "future": {"a": [None]}}
    made = api.job(
        src_siteid=site, max_tries=100, priority="0", extra_opts=options, src_filepath=" a b/'\"$\n-é"
    )
    assert (made["extra_opts"], made["priority"]) == (options, 0)
    assert made["src_filepath"] == " a b/'\"$\n-é"
    assert Job.objects.get().max_tries == 100
    api.post("/list", {"src_siteid": site, "src_filepath": "f"}, X_Callback_Url="http://me.example/x")
    assert Job.objects.order_by("-pk")[0].callback_url == "http://me.example/x"
    wrong = api.post("/list", {"src_siteid": site, "src_filepath": "f"}, X_Callback_Url="ftp://x/")
    assert "X-Callback-Url" in error(wrong, 400)


def test_what_is_missing_is_named(api: Api) -> None:
    for name, kind in product(BODIES, KINDS):
        for text in ("", "{}", "null")[: 1 if kind == "multipart/form-data" else 3]:
            missing = "type" if name == "jobs" else "src_siteid"
            assert missing in error(api.send("POST", f"/{name}", text, kind), 400)
    for name, example in BODIES.items():
        sent = {**example, **({"type": "0"} if name == "jobs" else {})}
        for field in sent:
            rest = {key: value for key, value in sent.items() if key != field}
            assert field in error(api.post(f"/{name}", rest), 400)
            assert field in error(api.post(f"/{name}", {**sent, field: None}), 400)
    assert not Job.objects.exists()


def test_bad_values(api: Api, site: int) -> None:
    sent = {"src_siteid": site, "src_filepath": "a", "type": 0}
    wrong = [(field, given) for field, values in WRONG.items() for given in values]
    options = [("extra_opts", {name: given}) for name, values in WRONG_OPTIONS.items() for given in values]
    for field, given in [*wrong, *options]:
        told = error(api.post("/jobs", {**sent, field: given}), 400)
        name = next(iter(given)) if (field, given) in options else ""
        assert f"{field}.{name}".rstrip(".") in told, (field, given)
    assert not Job.objects.exists()


def test_paths(api: Api, site: int) -> None:
    for path in ("/a", "~", "~/a", "a", "a/../b", "/a/b/../..", "...", "..a", "~x/..", "/~", "a//b", "\\x"):
        assert api.job(src_siteid=site, src_filepath=path)["src_filepath"] == path
    for path in ("a\u0000b", "..", "/a/../..", "~/../x", "./../x"):
        error(api.post("/list", {"src_siteid": site, "src_filepath": path}), 400)
    two = {"src_siteid": site, "src_filepath": "a", "dst_siteid": site}
    assert "dst_filepath" in error(api.post("/copy", {**two, "dst_filepath": "../x"}), 400)


def test_paths_that_are_no_utf8(api: Api, site: int) -> None:
    options = {"escaped": True}
    made = api.job(src_siteid=site, src_filepath=r"a\xffb\\c", extra_opts=options)
    assert made["src_filepath"] == r"a\xffb\\c"
    assert (Job.objects.get().escaped, Element.objects.get().escaped) == (True, True)
    for path in (r"a\b", r"a\x0", r"a\x00b", r"\x2e\x2e/b", "\\"):
        sent = {"src_siteid": site, "src_filepath": path, "extra_opts": options}
        assert "src_filepath" in error(api.post("/list", sent), 400)


def test_the_root_of_a_site_is_not_removed(api: Api) -> None:
    site = api.site(default_path="/data/ann/")
    for path in ("/", "~", "~/", ".", "//", "/.", "a/..", "/a/..", "~/a/..", "/data/ann", "/data//ann/"):
        told = error(api.post("/remove", {"src_siteid": site, "src_filepath": path}), 400)
        assert "root" in told
    escaped = {"src_siteid": site, "src_filepath": r"\x2f", "extra_opts": {"escaped": True}}
    error(api.post("/remove", escaped), 400)
    for path in ("/data", "/data/ann/x", "data/ann", "~/x", "/~"):
        api.job("remove", src_siteid=site, src_filepath=path)
    api.job("list", src_siteid=site, src_filepath="/")


def test_sites_that_cannot_be_used(api: Api, stranger: Api, colleague: Api, site: int) -> None:
    private = colleague.site("mine")
    foreign = stranger.site("theirs", visibility="tenant")
    for unknown in (private, foreign, 999_999):
        sent = {"src_siteid": unknown, "src_filepath": "a"}
        told = error(api.post("/list", sent), 404)
        assert told == f"src_siteid: there is no site {unknown}"
        copy = {"src_siteid": site, "src_filepath": "a", "dst_siteid": unknown, "dst_filepath": "b"}
        assert "dst_siteid" in error(api.post("/copy", copy), 404)
    colleague.job(src_siteid=site)
    assert not Job.objects.filter(user__username="ann").exists()


def test_banned_sites(api: Api, operator: Api, site: int) -> None:
    other = api.site("other")
    copy = {"src_siteid": other, "src_filepath": "a", "dst_siteid": site, "dst_filepath": "b"}
    for mode in ("cancel", "wait"):
        ok(operator.put(f"/sites/{site}/ban", {"mode": mode, "message": "disk is full"}))
        told = error(api.post("/list", {"src_siteid": site, "src_filepath": "a"}), 409)
        assert "disk is full" in told
        assert "dst_siteid" in error(api.post("/copy", copy), 409)
    ok(operator.put(f"/sites/{site}/ban", {"mode": "wait_as"}))
    api.job(src_siteid=site)
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    ok(operator.put(f"/sites/{site}/ban", {"mode": "wait", "until": past}))
    api.job(src_siteid=site)
    ok(operator.put(f"/sites/{site}/ban", {"mode": "wait"}))
    ok(operator.delete(f"/sites/{site}/ban"))
    api.job(src_siteid=site)


def test_jobs_for_pull_workers(api: Api, operator: Api, site: int) -> None:
    kept = operator.site("kept", visibility="tenant", pull_only=True)
    assert site_row(kept).pull_only
    api.job(src_siteid=site)
    api.job(src_siteid=kept)
    api.job("copy", src_siteid=site, dst_siteid=kept, dst_filepath="b")
    open_policy(Job.objects.latest("pk").tenant_id, "pull_workers")
    identity.forget()
    api.job(src_siteid=site)
    assert list(Job.objects.order_by("pk").values_list("pull", flat=True)) == [False, True, True, True]


def test_once_per_key_and_user(api: Api, colleague: Api, site: int) -> None:
    sent = {"src_siteid": site, "src_filepath": "a"}
    first = ok(api.post("/list", sent, Idempotency_Key="k"))
    assert ok(api.post("/list/", sent, Idempotency_Key="k")) == first
    assert ok(api.post("/list", sent, Idempotency_Key="l"))["id"] != first["id"]
    theirs = ok(colleague.post("/list", sent, Idempotency_Key="k"))
    assert theirs["user_id"] != first["user_id"]
    assert "another body" in error(api.post("/list", {**sent, "priority": 1}, Idempotency_Key="k"), 409)
    assert Job.objects.count() == 3


def test_a_trusted_networks_jobs(api: Api, settings: Any, site: int) -> None:
    settings.GANTRY_TRUSTED_NETWORKS = ["127.0.0.0/8=10002"]
    theirs = Api(api.tenant, "")
    answer = theirs.post("/list", {"src_siteid": site, "src_filepath": "a"})
    if answer.status_code == 401:
        pytest.fail("the network is not trusted: look at the setting's form")
    assert ok(answer)["user_id"] is None
    assert [job["user_id"] for job in ok(theirs.get("/jobs"))] == [None]
    assert ok(api.get("/jobs")) == []


def test_registering_takes_few_queries(api: Api, site: int) -> None:
    sent = {"src_siteid": site, "src_filepath": "a", "dst_siteid": site, "dst_filepath": "b"}
    ok(api.post("/copy", sent))
    with CaptureQueriesContext(connection) as seen:
        ok(api.post("/copy", sent))
    assert len(seen) <= 16, [query["sql"][:80] for query in seen]


def test_the_audit_log_names_what_was_made(api: Api) -> None:
    site = api.site()
    job = api.job(src_siteid=site)
    made, registered_job = list(audit._waiting)[-2:]
    assert (made.about, registered_job.about) == ({"site_id": site}, {"job_id": job["id"]})


def test_a_reader_registers_nothing(api: Api, site: int) -> None:
    reader = member("10002", "rea", "read")
    for name, sent in BODIES.items():
        error(reader.post(f"/{name}", {**sent, "src_siteid": site}), 403)
    assert body(reader.get("/jobs")) == []
    assert not Job.objects.exists()
