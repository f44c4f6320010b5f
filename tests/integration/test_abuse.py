"""Clients that mean harm, against real API processes: guessing, slow and huge requests, stolen sessions."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from config import bodies, login
from config.throttles import SharedBuckets
from tests.integration.test_browsers import basic
from tests.support.cluster import Api, Cluster, wait_until
from tests.support.fixtures import Account, make_account
from workers import tenancy
from workers.models import Run, Token

PASSWORD = "correct horse battery staple"
BODY = b'{"taskName": "slow", "commands": "true"}'


# --- Guessing -------------------------------------------------------------------------------------------


def attempt(browser: httpx.Client, password: str, **headers: str) -> httpx.Response:
    token = browser.get("/admin/login/").cookies.get("csrftoken") or browser.cookies["csrftoken"]
    form = {"username": "root", "password": password, "csrfmiddlewaretoken": token}
    return browser.post("/admin/login/", data=form, headers=headers)


def test_passwords_and_tokens_are_guessed_slowly_whichever_process_is_asked(cluster: Cluster) -> None:
    tenancy.create_user("root", password=PASSWORD, superuser=True)
    account = make_account("default")
    apis = [cluster.api(threads=2) for _ in range(2)]
    statuses = []
    for api in apis:
        with httpx.Client(base_url=api.url) as browser:
            statuses += [attempt(browser, "wrong").status_code for _ in range(6)]
    assert statuses == [200] * 10 + [429] * 2, "ten for both processes together"
    with httpx.Client(base_url=apis[0].url) as browser:
        refused = attempt(browser, PASSWORD)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0

    statuses = []
    for number in range(80):
        answer = httpx.get(f"{apis[number % 2].url}/api/v1/me", headers={"X-Token": f"gnt_{number}"})
        statuses.append(answer.status_code)
    assert set(statuses[:60]) == {401}
    assert statuses[-1] == 429
    for headers in (account.headers, basic(account.user, account.token)):
        assert httpx.get(f"{apis[0].url}/api/v1/me", headers=headers).status_code == 200


def test_one_name_is_guessed_slowly_from_many_addresses(
    client: Client, db: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "_names", SharedBuckets("test-name", 3, 0.01))
    tenancy.create_user("root", password=PASSWORD, superuser=True)
    settings.GANTRY_TRUSTED_PROXIES = ["127.0.0.1/32"]

    def guess(number: int, name: str = "root", password: str = "wrong") -> int:
        form = {"username": name, "password": password}
        return client.post(
            "/admin/login/", form, headers={"X-Forwarded-For": f"198.51.100.{number}"}
        ).status_code

    assert [guess(number) for number in range(5)] == [200, 200, 200, 429, 429]
    assert guess(9, " ROOT ") == 429
    assert guess(9, "somebody else") == 200
    monkeypatch.setattr(login, "_names", SharedBuckets("test-name-2", 3, 0.01))
    assert [guess(9), guess(9), guess(9, password=PASSWORD)] == [200, 200, 302]
    assert guess(9) == 200, "a success begins anew"


def test_a_token_that_ended_ends_in_every_process(cluster: Cluster) -> None:
    account, other = make_account("default"), make_account("default")
    apis = [cluster.api(threads=2) for _ in range(2)]

    def status(api: Api, who: Account) -> int:
        return httpx.get(f"{api.url}/api/v1/me", headers=who.headers).status_code

    assert {status(api, who) for api in apis for who in (account, other)} == {200}
    tenancy.revoke_token(Token.objects.get(user__username=account.user).pk)
    soon = timezone.now() + timedelta(seconds=0.5)
    Token.objects.filter(user__username=other.user).update(expires_at=soon)
    wait_until(lambda: {status(api, who) for api in apis for who in (account, other)} == {401}, 10)


# --- Sessions ---------------------------------------------------------------------------------------------


def test_a_session_that_was_planted_is_not_the_one_after_the_login(
    client: Client, db: None, settings: Settings
) -> None:
    tenancy.create_user("root", password=PASSWORD, superuser=True)
    session = client.session
    session["planted"] = "yes"
    session.save()
    planted = session.session_key
    client.cookies[settings.SESSION_COOKIE_NAME] = planted
    answer = client.post("/admin/login/", {"username": "root", "password": PASSWORD, "next": "/admin/"})
    assert answer.status_code == 302
    cookie = answer.cookies[settings.SESSION_COOKIE_NAME]
    assert cookie.value != planted
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    thief = Client()
    thief.cookies[settings.SESSION_COOKIE_NAME] = planted
    assert thief.get("/api/v1/me").status_code == 401
    # After the logout the old cookie opens nothing.
    kept = Client()
    kept.cookies[settings.SESSION_COOKIE_NAME] = cookie.value
    assert kept.get("/admin/").status_code == 200
    client.post("/admin/logout/")
    assert kept.get("/admin/").status_code == 302


def test_behind_tls_cookies_travel_over_tls_only(cluster: Cluster) -> None:
    tenancy.create_user("root", password=PASSWORD, superuser=True)
    api = cluster.api(threads=2, GANTRY_HTTPS="1")
    with httpx.Client(base_url=api.url, headers={"X-Forwarded-Proto": "https"}) as browser:
        page = browser.get("/admin/login/")
        token = page.cookies["csrftoken"]
        # httpx keeps a Secure cookie to itself on http://: send it by hand.
        form = {"username": "root", "password": PASSWORD, "csrfmiddlewaretoken": token}
        own = {"Cookie": f"csrftoken={token}", "Referer": api.url.replace("http:", "https:") + "/admin/"}
        answer = browser.post("/admin/login/", data=form, headers=own)
        assert answer.status_code == 302, answer.text
        for line in answer.headers.get_list("set-cookie"):
            assert "Secure" in line
            assert "SameSite=Strict" in line
        assert page.headers["strict-transport-security"]
    plain = httpx.get(f"{api.url}/admin/login/")
    assert (plain.status_code, plain.headers["location"][:8]) == (301, "https://")


# --- Slow and huge requests ---------------------------------------------------------------------------------


@contextlib.contextmanager
def slow_client(api: Api, account: Account, head: str, sent: bytes) -> Iterator[socket.socket]:
    """A client that announces a body and stops after ``sent``."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as wire:
        lines = [
            "POST /v1/tasks HTTP/1.1", f"Host: {host}:{port}", f"Authorization: Bearer {account.token}", head,
        ]  # fmt: skip
        wire.sendall("\r\n".join([*lines, "", ""]).encode() + sent)
        yield wire


def post(api: Api, account: Account) -> httpx.Response:
    return httpx.post(f"{api.url}/v1/tasks", content=BODY, headers=account.headers, timeout=20)


def test_a_client_that_stops_sending_holds_no_thread(cluster: Cluster) -> None:
    account = make_account("default")
    api = cluster.api(threads=2, GANTRY_BODY_S="1", GANTRY_BODY_READERS="4")
    with contextlib.ExitStack() as held:
        for head, sent in (
            ("Content-Length: 100", b'{"task'),
            ("Content-Length: 100", b""),
            ("Transfer-Encoding: chunked", b"5\r\nab"),
        ):
            wire = held.enter_context(slow_client(api, account, head, sent))
            begin = time.monotonic()
            assert wire.recv(4096).startswith(b"HTTP/1.1 408 Request Timeout")
            assert time.monotonic() - begin < 10
            assert post(api, account).status_code == 200
        wire = held.enter_context(slow_client(api, account, "Content-Length: 9", b"{"))
        answer = wire.recv(4096)
        while b"\r\n\r\n" not in answer or not answer.partition(b"\r\n\r\n")[2]:
            answer += wire.recv(4096)
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] < 0
        # Every reader waits for somebody: bodies are refused at once, everything else goes on.
        refused = post(api, account)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert httpx.get(f"{api.url}/v1/tasks?taskIds=1", headers=account.headers).status_code == 200
        assert httpx.get(f"{api.url}/healthz").status_code == 200
    # They have hung up.
    wait_until(lambda: post(api, account).status_code == 200, 15)
    assert Run.objects.count() == 4


def test_a_body_that_drips_is_slow_as_well(cluster: Cluster) -> None:
    account = make_account("default")
    api = cluster.api(threads=2, GANTRY_BODY_S="1")
    with slow_client(api, account, "Content-Length: 1000", b"{") as wire:
        wire.settimeout(0.1)
        answer, end = b"", time.monotonic() + 15
        while not answer and time.monotonic() < end:
            wire.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                answer = wire.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408")


def test_readers_are_given_back_and_errors_pass_through(settings: Settings) -> None:
    settings.GANTRY_BODY_READERS = 1
    readers = bodies.Readers()
    for _ in range(5):
        assert readers.read(lambda: b"x", 5) == b"x"

    def broken() -> bytes:
        raise OSError("cut")

    with pytest.raises(OSError, match="cut"):
        readers.read(broken, 5)
    with pytest.raises(bodies.BodyTooSlow):
        readers.read(lambda: time.sleep(0.5) or b"", 0.05)
    with pytest.raises(bodies.NoReaders):
        readers.read(lambda: b"x", 5)
    wait_until(lambda: readers._free == 1, 10)
    assert readers.read(lambda: b"y", 5) == b"y"


@pytest.mark.parametrize(
    "lines",
    [["X-Big: " + "x" * 600_000], [f"X-{number}: y" for number in range(5000)], ["X" * 70_000 + ": y"]],
)
def test_huge_headers_are_refused_and_harm_nobody(cluster: Cluster, lines: list[str]) -> None:
    account = make_account("default")
    api = cluster.api(threads=2)
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as wire:
        data = b""
        with contextlib.suppress(OSError):
            wire.sendall("\r\n".join(["GET /api/v1/me HTTP/1.1", "Host: x", *lines, "", ""]).encode())
        with contextlib.suppress(OSError):
            data = wire.recv(4096)
    assert not data or data.split(b" ")[1].startswith(b"4"), data[:100]
    assert post(api, account).status_code == 200


def test_the_admins_login_is_no_way_around_it(cluster: Cluster, settings: Any) -> None:
    """Its form is read before anybody is known: a silent client gets an answer all the same."""
    User.objects.create(username="root")
    api = cluster.api(threads=2, GANTRY_BODY_S="1")
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as wire:
        wire.sendall(
            f"POST /admin/login/ HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 50\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            "Cookie: csrftoken=cccccccccccccccccccccccccccccccc\r\n\r\n".encode()
        )
        assert wire.recv(4096).split(b" ")[1] in (b"403", b"408")
    assert httpx.get(f"{api.url}/healthz").status_code == 200
