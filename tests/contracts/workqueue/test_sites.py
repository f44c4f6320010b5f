"""Sites: who sees, makes and changes them, what is refused, credentials, limits, bans, links."""

from __future__ import annotations

import json
from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.contracts.workqueue.conftest import ENDPOINT, V11, Api, error, member, node, ok, site_row
from workers.models import Node, Secret
from workqueue.models import Credential, Link, LinkChange, Site
from workqueue.sites import schema

CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBeDCCAR+gAwIBAgIUcanary
-----END CERTIFICATE-----
"""
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\ncanary-key\n-----END OPENSSH PRIVATE KEY-----\n"
PROXY = "-----BEGIN CERTIFICATE-----\ncanary-proxy\n-----END CERTIFICATE-----\n"
#: Field -> bad values of it.
WRONG: dict[str, list[Any]] = {
    "name": [None, "", 5, "x" * 129],
    "visibility": ["all", 5],
    "default_path": ["data", "/../x", 5],
    "endpoints": [None, [], {}, "x", [5], [ENDPOINT] * 33],
    "cas": ["x", [5], ["no pem"], [CERTIFICATE]],
    "host_keys": ["x", [""], ["ssh-rsa"], ["a b\nc d"]],
    "pull_only": ["yes", 1],
}
#: The same of an endpoint.
WRONG_ENDPOINT: dict[str, list[Any]] = {
    "protocol": [None, "FTP", 5, "DUMMY"],
    "host": [None, "", "a b", "a/b", "u@h", "h:22", "x?y", "[::1", "256.1.1.1", 5],
    "port": [-1, 65536, "x", True],
    "path": [5, "/a/../b", ".."],
    "options": ["x", []],
}


def make(who: Api, **fields: Any) -> Any:
    return who.post("/sites", {"name": "s", "endpoints": [ENDPOINT], **fields})


def test_a_site_as_it_is_documented(api: Api) -> None:
    made = ok(api.post("/sites", schema.BODY_EXAMPLE), 201)
    nothing: dict[str, Any] = {"set": [], "changed_at": None}
    varies = ("id", "created_at", "credentials")
    assert list(made) == list(schema.SITE_EXAMPLE)
    assert {k: v for k, v in made.items() if k not in varies} == {
        k: v for k, v in schema.SITE_EXAMPLE.items() if k not in varies
    }
    assert (isinstance(made["id"], int), made["credentials"]) == (True, nothing)
    assert ok(api.get(f"/sites/{made['id']}")) == ok(api.get(f"{V11}/sites/{made['id']}/")) == made
    assert ok(api.get("/sites")) == [made]
    changed = ok(api.put(f"/sites/{made['id']}", {**schema.BODY_EXAMPLE, "name": "b", "unknown": 1}))
    assert changed == {**made, "name": "b"}
    assert ok(api.delete(f"/sites/{made['id']}")) == changed
    error(api.get(f"/sites/{made['id']}"), 404)
    assert ok(api.get("/sites")) == []
    assert ok(make(api, name="b"), 201)["id"] != made["id"]


def test_what_is_left_out(api: Api) -> None:
    made = ok(make(api, endpoints=[{"protocol": "ssh", "host": "Files.Example."}]), 201)
    assert (made["default_path"], made["visibility"], made["by_operator"]) == ("/", "private", False)
    endpoint = {"protocol": "SFTP", "host": "files.example", "port": 0, "path": "/", "options": {}}
    assert made["endpoints"] == [endpoint]
    addresses = [
        {**ENDPOINT, "host": "[2001:DB8::1]"},
        {**ENDPOINT, "host": "2001:db8::2"},
        {**ENDPOINT, "host": "10.0.0.1"},
        {"protocol": "SWIFT", "path": "c", "options": {"auth_url": "https://k.example/v3", "x": 1}},
        {**ENDPOINT, "port": 9000, "protocol": "S3", "options": {"scheme": "http", "region": "r1"}},
    ]
    found = ok(make(api, name="t", endpoints=addresses), 201)["endpoints"]
    assert [each["host"] for each in found] == ["2001:db8::1", "2001:db8::2", "10.0.0.1", "", "files.example"]
    assert found[3]["options"] == {"auth_url": "https://k.example/v3"}
    assert found[4]["options"] == {"scheme": "http", "region": "r1"}


def test_bad_values(api: Api) -> None:
    for field, values in WRONG.items():
        for given in values:
            assert field in error(make(api, **{field: given}), 400), given
    for field, values in WRONG_ENDPOINT.items():
        for given in values:
            told = error(make(api, endpoints=[ENDPOINT, {**ENDPOINT, field: given}]), 400)
            assert f"endpoints[1].{field}" in told, given
    for protocol, name, value in (("S3", "scheme", "ftp"), ("SWIFT", "auth_url", "x"), ("S3", "region", 5)):
        wrong = {"protocol": protocol, "host": "h", "options": {name: value}}
        assert f"endpoints[0].options.{name}" in error(make(api, endpoints=[wrong]), 400)
    assert not Site.objects.exists()


def test_names_are_unique_within_a_tenant(api: Api, colleague: Api, stranger: Api) -> None:
    first = api.site("s")
    assert "name" in error(make(colleague), 409)
    stranger.site("s")
    other = api.site("t")
    error(api.put(f"/sites/{other}", {"name": "s", "endpoints": [ENDPOINT]}), 409)
    assert ok(api.get(f"/sites/{first}"))["name"] == "s"


def test_who_sees_a_site(api: Api, colleague: Api, stranger: Api, operator: Api) -> None:
    private, shared = api.site("private"), api.site("shared", visibility="tenant")
    public = operator.site("public", visibility="public")
    for who, seen in (
        (api, [private, shared, public]),
        (colleague, [shared, public]),
        (stranger, [public]),
        (operator, [private, shared, public]),
    ):
        assert [site["id"] for site in ok(who.get("/sites"))] == seen
        for site in (private, shared, public):
            answer = who.get(f"/sites/{site}")
            assert answer.status_code == (200 if site in seen else 404)
            assert who.get(f"/sites/{site}/links").status_code == answer.status_code


def test_who_changes_a_site(api: Api, colleague: Api, stranger: Api, operator: Api) -> None:
    shared = api.site("shared", visibility="tenant")
    public = operator.site("public", visibility="public")
    sent = {"name": "x", "endpoints": [ENDPOINT], "visibility": "tenant"}
    for who, site, status in (
        *((colleague, shared, 403), (stranger, shared, 404), (api, public, 403), (stranger, public, 403)),
    ):
        error(who.put(f"/sites/{site}", sent), status)
        error(who.delete(f"/sites/{site}"), status)
    assert set(Site.objects.values_list("name", flat=True)) == {"shared", "public"}
    ok(operator.put(f"/sites/{shared}", sent))
    ok(operator.delete(f"/sites/{public}"))
    reader = member("10002", "rea", "read")
    for method, path in (("POST", "/sites"), ("PUT", f"/sites/{shared}"), ("DELETE", f"/sites/{shared}")):
        error(reader.send(method, path, json.dumps(sent), "application/json"), 403)
    ok(reader.get(f"/sites/{shared}"))


def test_what_only_operators_make(api: Api, operator: Api) -> None:
    node("/data")
    closed: list[dict[str, Any]] = [
        {"visibility": "public"},
        {"pull_only": True},
        *({"endpoints": [{**ENDPOINT, "protocol": name}]} for name in ("GRIDFTP", "XROOTD", "LOCAL")),
        {"endpoints": [ENDPOINT, {"protocol": "LOCAL", "path": "/data"}]},
    ]
    for fields in closed:
        assert "operate" in error(make(api, **fields), 403)
    own = api.site("own")
    sent = {"name": "own", "endpoints": [{**ENDPOINT, "protocol": "GRIDFTP"}]}
    error(api.put(f"/sites/{own}", sent), 403)
    error(operator.put(f"/sites/{own}", sent), 403)  # its owner would have it then
    for number, name in enumerate(("GRIDFTP", "XROOTD")):
        made = ok(make(operator, name=f"g{number}", endpoints=[{**ENDPOINT, "protocol": name}]), 201)
        assert made["by_operator"]


def test_local_sites_are_where_a_node_offers_a_folder(api: Api, operator: Api) -> None:
    def local(path: str) -> Any:
        name = f"site {path}"[:100]
        return make(operator, name=name, endpoints=[{"protocol": "LOCAL", "path": path}], visibility="tenant")

    assert "GANTRY_LOCAL_SITES" in error(local("/data"), 400)
    there = node("/data", "/home/shared/")
    for path in ("/data", "/data/a/b", "/data//c/", "/home/shared/x"):
        shown = ok(local(path), 201)["endpoints"][0]
        assert shown["path"] == path.replace("//", "/").rstrip("/")
    for path in ("/", "/datas", "/data/../etc", "/home", "data", "/home/shared2"):
        error(local(path), 400)
    Node.objects.filter(pk=there.pk).update(mode=Node.Mode.REMOVED)
    error(local("/data/z"), 400)
    node("/data", name="node-b", mode=Node.Mode.DRAINING)
    ok(local("/data/z"), 201)


def test_credentials_are_encrypted_and_never_shown(api: Api, colleague: Api, capfd: Any) -> None:
    site = api.site(visibility="tenant")
    sent = {"username": "canary-name", "password": "canary-password", "key": KEY, "proxy": PROXY}
    answer = api.put(f"/sites/{site}/credentials", sent)
    told = ok(answer)
    assert told["set"] == ["username", "password", "key", "proxy"]
    assert told["changed_at"]
    assert ok(api.get(f"/sites/{site}"))["credentials"] == told
    assert ok(api.get("/sites"))[0]["credentials"] == told
    assert ok(colleague.get(f"/sites/{site}"))["credentials"] == {"set": [], "changed_at": None}
    assert Secret.objects.count() == 3
    first = set(Secret.objects.values_list("pk", flat=True))
    assert ok(api.put(f"/sites/{site}/credentials", {"password": "other"}))["set"] == ["password"]
    assert Secret.objects.count() == 1
    assert not first & set(Secret.objects.values_list("pk", flat=True))
    ok(colleague.put(f"/sites/{site}/credentials", {"key": KEY}))
    assert ok(api.delete(f"/sites/{site}/credentials")) == {"set": [], "changed_at": None}
    assert ok(api.delete(f"/sites/{site}/credentials")) == {"set": [], "changed_at": None}
    assert Secret.objects.count() == 1
    ok(api.delete(f"/sites/{site}"))
    assert (Secret.objects.count(), Credential.objects.count()) == (0, 0)
    out = capfd.readouterr()
    assert "canary" not in out.out + out.err + answer.getvalue().decode()
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(s::text, '') FROM workers_auditentry s")
        assert "canary" not in str(cursor.fetchone()[0])


def test_credentials_that_are_none(api: Api, site: int) -> None:
    wrong: list[dict[str, Any]] = [
        *({}, {"key": "x"}, {"proxy": "x"}, {"password": 5}, {"username": "x" * 256}, {"unknown": "x"}),
    ]
    for sent in wrong:
        error(api.put(f"/sites/{site}/credentials", sent), 400)
    assert not Credential.objects.exists()


def test_a_users_site_that_leads_elsewhere_has_no_credentials_any_more(
    api: Api, colleague: Api, operator: Api
) -> None:
    site, trusted = api.site(visibility="tenant"), operator.site("t", visibility="tenant")
    for each in (site, trusted):
        ok(colleague.put(f"/sites/{each}/credentials", {"password": "x"}))
    same = {"name": "renamed", "endpoints": [ENDPOINT], "visibility": "tenant"}
    ok(api.put(f"/sites/{site}", same))
    assert Credential.objects.count() == 2
    elsewhere = {**same, "endpoints": [{**ENDPOINT, "host": "evil.example"}]}
    ok(api.put(f"/sites/{site}", elsewhere))
    assert Credential.objects.get().site_id == trusted
    ok(operator.put(f"/sites/{trusted}", {**elsewhere, "name": "t"}))
    assert (Credential.objects.count(), Secret.objects.count()) == (1, 1)


def test_a_site_in_use_is_not_deleted(api: Api, colleague: Api) -> None:
    site, other = api.site(visibility="tenant"), api.site("other", visibility="tenant")
    job = colleague.job("copy", src_siteid=site, dst_siteid=other, dst_filepath="b")
    for each in (site, other):
        assert str(job["id"]) in error(api.delete(f"/sites/{each}"), 409)
    ok(colleague.post(f"/jobs/{job['id']}/cancel"))
    ok(api.delete(f"/sites/{site}"))
    assert ok(colleague.get(f"/jobs/{job['id']}"))["src_siteid"] == site
    assert site_row(site).deleted_at is not None


def test_limits(api: Api, operator: Api, site: int) -> None:
    sent = {"max_active_in": 3, "max_active_out": "4", "max_bytes_per_s": 10**12}
    error(api.put(f"/sites/{site}/limits", sent), 403)
    limits = {"max_active_in": 3, "max_active_out": 4, "max_bytes_per_s": 10**12}
    assert ok(operator.put(f"/sites/{site}/limits", sent))["limits"] == limits
    assert ok(api.get(f"/sites/{site}"))["limits"] == limits
    for wrong in ({"max_active_in": 0}, {"max_active_out": "x"}, {"max_bytes_per_s": -1}):
        assert next(iter(wrong)) in error(operator.put(f"/sites/{site}/limits", wrong), 400)
    assert set(ok(operator.put(f"/sites/{site}/limits", {}))["limits"].values()) == {None}


def test_bans(api: Api, operator: Api, site: int) -> None:
    sent = {"mode": "wait", "message": "m", "until": "2100-01-01T01:00:00+01:00"}
    error(api.put(f"/sites/{site}/ban", sent), 403)
    error(api.delete(f"/sites/{site}/ban"), 403)
    ban = {"mode": "wait", "message": "m", "until": "2100-01-01T00:00:00.000000Z"}
    assert ok(operator.put(f"/sites/{site}/ban", sent))["ban"] == ban
    assert ok(api.get(f"/sites/{site}"))["ban"] == ban
    for wrong in ({}, {"mode": "stop"}, {"mode": ""}, {"mode": "wait", "until": "soon"}, {"mode": 5}):
        error(operator.put(f"/sites/{site}/ban", wrong), 400)
    assert ok(operator.delete(f"/sites/{site}/ban"))["ban"] is None
    for method in ("put", "delete"):
        answer = operator.send(method.upper(), "/sites/999999/ban", json.dumps(sent), "application/json")
        error(answer, 404)


def test_links_with_their_sentences(api: Api, colleague: Api, stranger: Api, operator: Api) -> None:
    one, two = api.site("one", visibility="tenant"), api.site("two", visibility="tenant")
    private = api.site("private")
    foreign = stranger.site("foreign", visibility="tenant")
    for source, target in ((one, two), (two, one), (one, private), (foreign, one), (two, private)):
        link = Link.objects.create(
            source_id=source, target_id=target, streams=6, throughput=5.5, sentence="six are faster"
        )
        for streams in range(25):
            LinkChange.objects.create(
                link=link, streams_before=streams, streams=streams + 1, sentence=f"change {streams}"
            )
    found = ok(api.get(f"/sites/{one}/links"))
    assert [(link["source"], link["target"]) for link in found] == [(one, two), (one, private), (two, one)]
    assert set(found[0]) == set(schema.LINK_EXAMPLE)
    assert (found[0]["streams"], found[0]["sentence"]) == (6, "six are faster")
    assert len(found[0]["changes"]) == 20
    assert set(found[0]["changes"][0]) == set(schema.LINK_EXAMPLE["changes"][0])
    assert (found[0]["changes"][0]["from"], found[0]["changes"][0]["to"]) == (24, 25)
    assert len(ok(colleague.get(f"/sites/{one}/links"))) == 2
    assert len(ok(operator.get(f"/sites/{one}/links"))) == 3
    assert ok(api.get(f"/sites/{private}/links"))[0]["target"] == private


def test_once_per_key(api: Api) -> None:
    sent = {"name": "s", "endpoints": [ENDPOINT]}
    first = ok(api.post("/sites", sent, Idempotency_Key="k"), 201)
    assert ok(api.post("/sites", sent, Idempotency_Key="k"), 201) == first
    assert Site.objects.count() == 1


def test_lists_of_sites(api: Api) -> None:
    ids = [api.site(f"s{number}") for number in range(5)]
    ok(api.put(f"/sites/{ids[0]}/credentials", {"password": "x"}))
    with CaptureQueriesContext(connection) as seen:
        assert len(ok(api.get("/sites"))) == 5
    few = len(seen)
    answer = api.get("/sites?limit=2")
    assert [site["id"] for site in ok(answer)] == ids[:2]
    assert f"cursor={ids[1]}" in answer.headers["Link"]
    for number in range(5):
        api.site(f"t{number}")
    with CaptureQueriesContext(connection) as seen:
        assert len(ok(api.get("/sites"))) == 10
    assert len(seen) == few
    for unknown in ("0", "x", "-1", str(10**30)):
        error(api.get(f"/sites/{unknown}"), 404)
