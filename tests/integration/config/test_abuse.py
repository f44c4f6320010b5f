"""Clients that mean harm, against real API processes: guessing, slow and huge requests, stolen sessions."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from config.http import login
from config.http.throttles import SharedBuckets
from tests.integration.config.test_browsers import basic
from tests.support.cluster import Api, Cluster
from tests.support.fixtures import Account, make_account
from tests.support.waiting import limit, wait_until
from workers.models import Token
from workers.tenants import tenancy

pytestmark = pytest.mark.invariant

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

    def tries(password: str) -> Iterator[httpx.Response]:
        """One after the other, at each process in turn, until one is refused: that is the last."""
        for api in itertools.cycle(apis):
            with httpx.Client(base_url=api.url, timeout=limit(60)) as browser:
                answer = attempt(browser, password)
            yield answer
            if answer.status_code == 429:
                return

    began = time.monotonic()
    *guesses, refused = tries("wrong")
    # One in 30 s comes back: on a slow machine, on which each takes seconds, it takes more of them.
    most = 10 + (time.monotonic() - began) / 30 + 1
    if any("throttle.redis_away" in api.text() for api in apis):
        most += 20  # each process counted by itself for a while
    assert {answer.status_code for answer in guesses} == {200}
    assert 10 <= len(guesses) <= most, "ten for both processes together"
    assert int(refused.headers["retry-after"]) > 0
    right = refused
    for _ in range(10):
        with httpx.Client(base_url=apis[0].url, timeout=limit(60)) as browser:
            right = attempt(browser, PASSWORD)
        if right.status_code == 429:
            break
        list(tries("wrong"))  # one had come back meanwhile
    assert right.status_code == 429

    passed = 0
    with httpx.Client(timeout=limit(60)) as anybody:
        # A credential a second comes back: on a slow machine it takes more of them.
        for number in range(1000):
            url = f"{apis[number % 2].url}/api/v1/me"
            if anybody.get(url, headers={"X-Token": f"gnt_{number}"}).status_code == 429:
                break
            passed += 1
    assert 60 <= passed < 1000
    for headers in (account.headers, basic(account.user, account.token)):
        assert httpx.get(f"{apis[0].url}/api/v1/me", headers=headers, timeout=limit(60)).status_code == 200


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
        return httpx.get(f"{api.url}/api/v1/me", headers=who.headers, timeout=limit(60)).status_code

    assert {status(api, who) for api in apis for who in (account, other)} == {200}
    tenancy.revoke_token(Token.objects.get(user__username=account.user).pk)
    soon = timezone.now() + timedelta(seconds=0.5)
    Token.objects.filter(user__username=other.user).update(expires_at=soon)
    wait_until(
        lambda: {status(api, who) for api in apis for who in (account, other)} == {401},
        why="both end in both processes",
    )


# --- Sessions ---------------------------------------------------------------------------------------------


def test_a_session_that_was_planted_is_not_the_one_after_the_login(
    client: Client, db: None, settings: Settings
) -> None:
    tenancy.create_user("root", password=PASSWORD, superuser=True)
    session = client.session
    session["planted"] = "yes"
    session.save()
    planted = session.session_key or ""
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
    with httpx.Client(base_url=api.url, headers={"X-Forwarded-Proto": "https"}, timeout=limit(60)) as browser:
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
    plain = httpx.get(f"{api.url}/admin/login/", timeout=limit(60))
    assert (plain.status_code, plain.headers["location"][:8]) == (301, "https://")


# --- Slow and huge requests ---------------------------------------------------------------------------------


def post(api: Api, account: Account) -> httpx.Response:
    return httpx.post(f"{api.url}/v1/tasks", content=BODY, headers=account.headers, timeout=limit(60))


@pytest.mark.parametrize(
    "lines",
    [["X-Big: " + "x" * 600_000], [f"X-{number}: y" for number in range(5000)], ["X" * 70_000 + ": y"]],
)
def test_huge_headers_are_refused_and_harm_nobody(cluster: Cluster, lines: list[str]) -> None:
    account = make_account("default")
    api = cluster.api(threads=2)
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=limit(60)) as wire:
        data = b""
        with contextlib.suppress(OSError):
            wire.sendall("\r\n".join(["GET /api/v1/me HTTP/1.1", "Host: x", *lines, "", ""]).encode())
        with contextlib.suppress(OSError):
            data = wire.recv(4096)
    assert not data or data.split(b" ")[1].startswith(b"4"), data[:100]
    assert post(api, account).status_code == 200
