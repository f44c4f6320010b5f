"""Whoever follows a log is let in once and reads for hours: what ends the credentials ends the following."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from tests.integration.logs.log_runs import LoggedRun, running
from tests.support.fixtures import Account, make_account
from workers.logs import signed_urls
from workers.models import Membership, Tenant, Token
from workers.tenants import identity

pytestmark = pytest.mark.django_db(transaction=True)


def _followed(run: LoggedRun, path: str, account: Account | None) -> Iterator[bytes]:
    headers = {} if account is None else account.headers
    answer: Any = Client().get(path, headers=headers)
    assert answer.status_code == 200
    pieces: Iterator[bytes] = iter(answer.streaming_content)
    run.write(b"one ", 0)
    while b"one" not in next(pieces):
        pass
    return pieces


@pytest.mark.parametrize("what", ["token", "user", "membership", "tenant"])
def test_a_follower_ends_with_its_credentials(what: str, settings: Settings) -> None:
    settings.TOKEN_CACHE_S = 0.0
    run = running()
    account = make_account(run.row.tenant.name)
    pieces = _followed(run, f"/api/v1/runs/{run.id}/logs?follow=1", account)

    token = Token.objects.select_related("user").get(digest=identity.digest(account.token))
    if what == "token":
        Token.objects.filter(pk=token.pk).update(revoked_at=timezone.now())
    elif what == "user":
        type(token.user).objects.filter(pk=token.user_id).update(is_active=False)
    elif what == "membership":
        Membership.objects.filter(user_id=token.user_id).delete()
    else:
        Tenant.objects.update(active=False)
    run.write(b"two", 4)
    assert next(pieces, None) is None


def test_a_good_follower_goes_on(settings: Settings) -> None:
    settings.TOKEN_CACHE_S = 0.0
    run = running()
    account = make_account(run.row.tenant.name)
    pieces = _followed(run, f"/api/v1/runs/{run.id}/logs?follow=1", account)
    run.write(b"two", 4)
    run.finish()
    rest = b"".join(pieces)
    assert (b"two" in rest, b"event: end" in rest) == (True, True)


def test_a_signed_url_ends_when_it_expires(settings: Settings) -> None:
    settings.TOKEN_CACHE_S, settings.GANTRY_SIGNED_URL_S = 0.0, 2
    run = running()
    url = urlsplit(signed_urls.log_url(f"/v1/tasks/{run.id}/logs", "stdout"))
    pieces = _followed(run, f"{url.path}?{url.query}&follow=1", None)
    time.sleep(2.0)  # pace: the URL expires
    run.write(b"two", 4)
    assert b"two" not in b"".join(pieces)
