"""One delivery against real servers on loopback: the guard, limits, and what is read of an answer."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.support.cluster import free_port
from tests.support.receivers import Receivers, drip, drip_body, flood, hang, reset, status
from workers.callbacks.schedule import Sent
from workers.callbacks.sending import ANSWER_MOST, send

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NEW = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()


@pytest.fixture
def them() -> Iterator[Receivers]:
    with Receivers() as found:
        yield found


@pytest.fixture(autouse=True)
def _open(settings: Any) -> None:
    settings.GANTRY_CALLBACK_ALLOW_NETWORKS = ["127.0.0.0/8"]


def sent(url: str, total_s: float = 30.0, **more: Any) -> Sent:
    return send(url, "msg_1", '{"taskId": 7}', [SECRET], total_s=total_s, **more)


def test_what_a_receiver_gets(them: Receivers) -> None:
    found = send(
        them.url("/a?b=c").replace("http://", "http://me:pass@"),
        "msg_1",
        '{"ä": 1}',
        [NEW, SECRET],
        total_s=60,
    )
    assert (found.status, found.error, found.accepted) == (200, "", True)
    (got,) = them.at("/a?b=c")
    assert got.headers["authorization"] == "Basic " + base64.b64encode(b"me:pass").decode()
    assert got.headers["content-type"] == "application/json"
    assert got.verified(SECRET) == got.verified(NEW) == {"ä": 1}, (
        "both secrets sign while one replaces the other"
    )
    assert len(got.headers["webhook-signature"].split()) == 2
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 120


@pytest.mark.parametrize(
    ("way", "code", "timed_out"),
    [
        (hang(), None, True),
        (drip, None, True),
        (reset, None, False),
        (status(302, Location="http://127.0.0.1:1/"), 302, False),
        (status(500), 500, False),
        (drip_body, 200, False),
        (flood, 200, False),
    ],
)
def test_ways_to_misbehave(them: Receivers, way: Any, code: int | None, timed_out: bool) -> None:
    them.answers["/x"] = way
    found = sent(them.url("/x"), 1.0 if timed_out else 3600.0)
    assert (found.status, found.timed_out, found.refused) == (code, timed_out, False)
    assert bool(found.error) is (code != 200)
    assert len(them.got) == 1, "no redirect is followed, nothing is sent twice"


def test_no_more_than_a_little_of_an_answer_is_read(them: Receivers) -> None:
    """An answer without an end: who reads all of it never comes back."""

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:  # until the client has gone
            request.wfile.write(b"x" * 65_536)

    them.answers["/x"] = endless
    assert ANSWER_MOST < 64 * 1024
    assert sent(them.url("/x"), 3600).status == 200


def test_nobody_listens_or_no_such_name() -> None:
    assert "connection refused" in sent(f"http://127.0.0.1:{free_port()}/").error
    found = sent("http://no.such.host.example/", resolver=lambda host: (_ for _ in ()).throw(OSError("no")))
    assert (found.status, found.refused, "cannot be looked up" in found.error) == (None, False, True)


def test_a_name_that_changes_its_address_is_looked_up_once(them: Receivers, settings: Any) -> None:
    """DNS rebinding: what was checked is what is connected to, whatever the next answer would be."""
    settings.GANTRY_CALLBACK_ALLOW_NETWORKS = ["127.0.0.9/32"]
    asked: list[str] = []

    def rebinding(first: str, then: str) -> Any:
        def resolve(host: str) -> list[str]:
            asked.append(host)
            return [first] if len(asked) == 1 else [then]

        return resolve

    url = f"http://rebind.example:{them.port}/r"
    found = sent(url, resolver=rebinding("127.0.0.9", "127.0.0.1"))
    assert (found.status, asked) == (200, ["rebind.example"]), "one look-up, and connected to what it said"
    assert them.got[0].host == f"rebind.example:{them.port}"
    asked.clear()
    found = sent(url, resolver=rebinding("127.0.0.1", "127.0.0.9"))
    assert (found.refused, "loopback" in found.error, "127.0.0.1" in found.error) == (True, True, False)
    asked.clear()
    found = sent(url, resolver=lambda host: ["93.184.216.34", "127.0.0.1"])
    assert found.refused, "a name that also leads inside is refused as a whole"
    assert len(them.got) == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://[::ffff:127.0.0.1]/", "http://169.254.169.254/"]
)
def test_denied_addresses(url: str, settings: Any) -> None:
    settings.GANTRY_CALLBACK_ALLOW_NETWORKS = []
    found = sent(url)
    assert (found.status, found.refused, "is refused" in found.error) == (None, True, True)


def test_it_can_be_given_up(them: Receivers) -> None:
    """The process ends: a delivery under way is left."""
    them.answers["/x"] = hang(3600)
    ticks = itertools.count()

    def tick() -> None:
        if next(ticks) > 2:
            raise KeyError("stop")

    with pytest.raises(KeyError):
        sent(them.url("/x"), 3600, tick=tick)
