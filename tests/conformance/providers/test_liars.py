"""Answers that no provider may give: each is Trouble that says so, in time, and holds no secret."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from structlog.testing import capture_logs

from queues.providers import asking, keystone, kubernetes, placement
from queues.providers.base import Provider, Trouble, checked
from tests.support.receivers import drip_body
from tests.support.waiting import limit
from tests.unit.addresses.web_server import Answer, Server, hang, plain, redirect

SECRET = "hunter22-hunter22"
TOKEN = "gAAAA-a-token-of-keystone"
UUID = "7d2590ae-fb85-4080-9306-058b4c915e3f"


@pytest.fixture
def server(settings: Any) -> Iterator[Server]:
    settings.GANTRY_QUEUE_ALLOW_NETWORKS = ["127.0.0.0/8"]
    settings.GANTRY_QUEUE_PROVIDER_S = limit(60.0)
    keystone.forget_tokens()
    made = Server()
    yield made
    made.close()
    keystone.forget_tokens()


def body(value: object, status: int = 200, **headers: str) -> Answer:
    return plain(json.dumps(value).encode(), status, **headers)


def heard(answer: Answer) -> Answer:
    """After the request's body: what is left unread resets the connection, answer and all, when it ends."""

    def read_first(request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers.get("Content-Length") or 0))
        answer(request)

    return read_first


def token(server: Server, *, lifetime_s: int = 3600) -> Answer:
    """What Keystone answers to the right password."""
    now = datetime.datetime(2026, 11, 30, tzinfo=datetime.UTC)
    endpoint = {"interface": "public", "region": "one", "url": server.url("/placement")}
    answer = {
        "issued_at": now.isoformat(),
        "expires_at": (now + datetime.timedelta(seconds=lifetime_s)).isoformat(),
        "catalog": [{"type": "placement", "endpoints": [endpoint]}],
    }
    return heard(body({"token": answer}, 201, **{"X-Subject-Token": TOKEN}))


def openstack(server: Server, bad: Answer) -> Provider:
    """A Placement behind a Keystone that is all right."""
    server.answers["/v3/auth/tokens"] = token(server)
    server.answers["/placement/resource_providers"] = bad
    return placement.make(options(server))


def cloud_without_keystone(server: Server, bad: Answer) -> Provider:
    server.answers["/v3/auth/tokens"] = heard(bad)
    return placement.make(options(server))


def cluster(server: Server, bad: Answer) -> Provider:
    server.answers["/api/v1/nodes"] = bad
    return kubernetes.make({"server": server.url("/").rstrip("/"), "secret": SECRET})


def options(server: Server) -> dict[str, Any]:
    return {
        "auth_url": server.url("/"),
        "username": "gantry",
        "user_domain": "Default",
        "project": "service",
        "project_domain": "Default",
        "secret": SECRET,
    }


def oversized(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(asking.MOST_BYTES + 1))
    request.end_headers()
    for _ in range(asking.MOST_BYTES // 2**20 + 1):
        request.wfile.write(b" " * 2**20)


def echo(request: BaseHTTPRequestHandler) -> None:
    """Says what it was told: credentials, too."""
    said = f"{dict(request.headers.items())} {SECRET} {TOKEN}"
    body({"message": said, "error": {"message": said}, "errors": [{"detail": said}]}, 403)(request)


Make = Callable[[Server, Answer], Provider]
liars = pytest.mark.parametrize("make", [openstack, cloud_without_keystone, cluster])


def trouble_of(make: Make, server: Server, bad: Answer) -> str:
    with capture_logs() as logs, pytest.raises(Trouble) as trouble:
        make(server, bad).capacity()
    said = str(trouble.value)
    assert said.isprintable()
    for secret in (SECRET, TOKEN):
        assert secret not in said + repr(logs) + repr(trouble.value.__cause__)
    return said


@liars
@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (redirect("http://127.0.0.1:1/elsewhere"), "redirects elsewhere, which is not followed"),
        (redirect("/elsewhere", 307), "redirects elsewhere, which is not followed"),
        (oversized, "answers with more than 32 MiB"),
        (echo, "403"),
        (plain(b"no", 500), "it answers 500"),
        (plain(b"no", 503), "it answers 503"),
        (plain(b"no", 404), r"there is no .* \(404\)"),
    ],
    ids=["redirect", "redirect-here", "oversized", "echo", "500", "503", "404"],
)
def test_refusals(make: Make, server: Server, bad: Answer, says: str) -> None:
    assert re.search(says, trouble_of(make, server, bad))


@liars
@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>a login page</html>",
        "{",
        "[" * 200_000,
        "null",
        "[]",
        "7",
        '"text"',
        '{"token": []}',
        '{"items": {}, "resource_providers": {"a": 1}}',
        '{"items": [1], "resource_providers": [1], "metadata": {}}',
        '{"items": [], "metadata": {"continue": 7}, "resource_providers": [{"uuid": "x"}]}',
        '{"items": [{"metadata": {}, "status": {}}], "resource_providers": [{"generation": 1e999}]}',
        f'{{"items": {"9" * 5000} }}',
    ],
    ids=lambda text: text[:30],
)
def test_garbage(make: Make, server: Server, text: str) -> None:
    """Catches an answer that is taken for an empty cloud, and an error of ours instead of Trouble."""
    status = 201 if make is cloud_without_keystone else 200
    said = trouble_of(make, server, plain(text.encode(), status))
    assert "no JSON" in said or "not what its API documents" in said


@liars
@pytest.mark.parametrize("bad", [hang, drip_body], ids=["hangs", "drips"])
def test_slow_ones_have_one_limit(make: Make, server: Server, settings: Any, bad: Answer) -> None:
    settings.GANTRY_QUEUE_PROVIDER_S = 1.0
    assert "longer than 1 s" in trouble_of(make, server, bad)


def test_a_catalog_without_placement(server: Server) -> None:
    server.answers["/v3/auth/tokens"] = token(server)
    elsewhere = placement.make({**options(server), "region": "two"})
    said = trouble_of(lambda *_: elsewhere, server, plain())
    assert "no public endpoint of placement in region two: give options.placement_url" in said


def test_a_catalog_that_leads_elsewhere_passes_the_guard(server: Server, settings: Any) -> None:
    """Catches a Keystone that sends our token to an address nobody has opened."""
    settings.GANTRY_QUEUE_ALLOW_NETWORKS = ["127.0.0.1/32"]
    provider = openstack(server, plain())
    server.answers["/v3/auth/tokens"] = body(
        {
            "token": {
                "issued_at": "2026-11-30T00:00:00Z",
                "expires_at": "2026-11-30T01:00:00Z",
                "catalog": [
                    {
                        "type": "placement",
                        "endpoints": [
                            {"interface": "public", "region": "one", "url": "http://169.254.169.254/"}
                        ],
                    }
                ],
            }
        },
        201,
        **{"X-Subject-Token": TOKEN},
    )
    said = trouble_of(lambda *_: provider, server, plain())
    assert "169.254.169.254 is refused" in said
    assert [path for path, _ in server.seen] == ["/v3/auth/tokens"]


def test_a_token_that_is_refused_is_replaced_once(server: Server) -> None:
    """Catches a token that is kept for ever, and one that is asked for again and again."""
    provider = openstack(server, body({}, 401))
    said = trouble_of(lambda *_: provider, server, body({}, 401))
    assert "refuses tokens that Keystone has just given (401)" in said
    assert [path for path, _ in server.seen].count("/v3/auth/tokens") == 2


def test_a_token_is_kept_until_it_expires(server: Server) -> None:
    provider = openstack(server, body({"resource_providers": []}))
    server.answers["/placement/allocation_candidates"] = body({"provider_summaries": {}})
    assert provider.capacity() == provider.capacity() == []
    assert [path for path, _ in server.seen].count("/v3/auth/tokens") == 1
    keystone.forget_tokens()
    server.answers["/v3/auth/tokens"] = token(server, lifetime_s=30)
    assert provider.capacity() == provider.capacity() == []
    assert [path for path, _ in server.seen].count("/v3/auth/tokens") == 3


def test_a_list_that_never_ends(server: Server, settings: Any) -> None:
    """Catches pages for ever: the question's time is one for all of them."""
    settings.GANTRY_QUEUE_PROVIDER_S = 1.0
    endless = body({"items": [], "metadata": {"continue": "again"}})
    assert "longer than 1 s" in trouble_of(cluster, server, endless)


@pytest.mark.parametrize(
    ("name", "amount"), [("x" * 300, "1"), ("a\x00b", "1"), ("", "1"), ("a", "1e30"), ("a", "-1")]
)
def test_names_and_amounts_that_cannot_be(server: Server, name: str, amount: str) -> None:
    node = {
        "metadata": {"name": name},
        "spec": {},
        "status": {"allocatable": {"cpu": amount}, "conditions": [{"type": "Ready", "status": "True"}]},
    }
    server.answers["/api/v1/pods"] = body({"items": [], "metadata": {}})
    provider = cluster(server, body({"items": [node], "metadata": {}}))
    with pytest.raises(Trouble):
        checked(provider.capacity())


def test_a_host_that_is_told_twice(server: Server) -> None:
    """Catches capacity that counts twice because its list does."""
    node = {
        "metadata": {"name": "a"},
        "spec": {},
        "status": {"allocatable": {"cpu": "1"}, "conditions": [{"type": "Ready", "status": "True"}]},
    }
    server.answers["/api/v1/pods"] = body({"items": [], "metadata": {}})
    provider = cluster(server, body({"items": [node, node], "metadata": {}}))
    with pytest.raises(Trouble, match="host a twice"):
        checked(provider.capacity())
