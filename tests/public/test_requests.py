"""Values that no client should send, in every place of every documented operation: no 500, no HTML."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from tests.public.requests import Asked, with_each_value
from tests.support.fixtures import Account
from workers.models import Run

#: (quoted in paths and queries, in bodies): numbers beyond 64 bits and beyond any float, bytes that are no
#: UTF-8, and text that JSON can hold and UTF-8 cannot.
VALUES = [
    ("9223372036854775808", 2**63),
    ("-9223372036854775809", 1e400),
    ("1" + "0" * 400, 10**400),
    ("%FF", "\ud800"),
]


@contextmanager
def undone() -> Iterator[None]:
    """What is done inside is taken back, a broken transaction too: each request finds the same."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def send(client: Client, account: Account, asked: Asked) -> Any:
    body = b"" if asked.body is None else json.dumps(asked.body).replace("Infinity", "1e400").encode()
    return client.generic(asked.method, asked.target, body, "application/json", headers=account.headers)


@pytest.mark.parametrize(("value", "body_value"), VALUES, ids=("2**63", "1e400", "10**400", "no UTF-8"))
def test_every_place_of_every_operation(operator: Account, value: str, body_value: Any) -> None:
    client = Client(raise_request_exception=False)
    seen: Counter[int] = Counter()
    broken: list[str] = []
    for asked in with_each_value(value, body_value):
        with undone():
            answer = send(client, operator, asked)
            seen[answer.status_code] += 1
            if answer.streaming:
                answer.getvalue()
            html = answer.headers["Content-Type"].startswith("text/html")
            # Amounts of the tasks family alone are clamped, infinite ones too.
            stored = "Infinity" in str(asked) and answer.status_code < 300 and asked.template != "/v1/tasks"
            if answer.status_code >= 500 or html or stored:
                broken.append(f"{answer.status_code} {asked}")
    assert broken == []
    assert min(seen[200], seen[400], seen[404]) > 20, seen


#: Headers that Gantry reads, with a byte above 0x7F as a server hands it on, and the status that this has.
HEADERS = {
    "Authorization": ("Bearer \xff", 401),
    "X-Token": ("\xff", 401),
    "X-Tenant-Id": ("\xff", 403),
    "X-Callback-Url": ("http://receiver.example/\xff", 400),
    "Idempotency-Key": ("\xff", 400),
    "Last-Event-ID": ("1:0:\xff", 400),
    "Range": ("bytes=0-\xff", 400),
    "Accept": ("\xff", 200),
    "User-Agent": ("\xff", 200),
}


@pytest.mark.parametrize(("name", "value", "status"), [(name, *told) for name, told in HEADERS.items()])
def test_headers_that_are_no_utf8(account: Account, name: str, value: str, status: int) -> None:
    client = Client(raise_request_exception=False)
    body = {"taskName": "a", "commands": "true"}
    headers = {**({} if name == "X-Token" else account.headers), name: value}
    answer = client.post("/v1/tasks", body, "application/json", headers=headers)
    assert answer.status_code == status, answer.content
    assert Run.objects.count() == (status == 200)
    if status == 400:
        assert name in answer.json()["message"]


#: Other bytes of the same JSON as the first one.
SPELLINGS = (
    b'{"taskName":"a","commands":"true"}',
    b'{"commands":"true","taskName":"a"}',
    b'{"taskName": "a", "commands": "true"}',
    b'{"taskName":"\\u0061","commands":"true"}',
)


def test_the_same_json_in_other_bytes_is_another_request(account: Account) -> None:
    client = Client()

    def post(body: bytes) -> Any:
        headers = {**account.headers, "Idempotency-Key": "k"}
        return client.post("/v1/tasks", body, "application/json", headers=headers)

    first = post(SPELLINGS[0])
    assert post(SPELLINGS[0]).content == first.content
    for body in SPELLINGS[1:]:
        answer = post(body)
        assert answer.status_code == 409
        assert "bytes" in answer.json()["message"]
    assert Run.objects.count() == 1
