"""The list of a queue: order, filters, pages, what is streamed. Page 50 and page 00, "Lists"."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from queues.models import Entry
from tests.contracts.queues.conftest import Api, admit, data, error, now


@pytest.fixture
def queue(api: Api) -> Api:
    """Running: r2, r1 (in the order of admission); queued: c, a, b; ended: x (cancelled), f (finished)."""
    for name in ("r1", "r2", "a", "b", "x", "c", "f"):
        api.create(name, owner_id="odd" if name in ("r1", "b") else "y")
    admit("r2")
    admit("r1")
    admit("f")
    api.delete("/v1/vm/f")
    api.delete("/v1/vm/x")
    api.move("c", before="a")
    return api


def pages(api: Api, query: str) -> list[list[str]]:
    """The request_ids of each page, as the Links lead."""
    found, url = [], f"/v1/vm/{query}"
    while url:
        answer = api.get(url)
        found.append([entry["RequestID"] for entry in data(answer)])
        link = answer.headers.get("Link", "")
        url = link.partition(">")[0].removeprefix("<http://testserver")
        assert not link or link.endswith('; rel="next"')
        assert len(found) < 20
    return found


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", ["r2", "r1", "c", "a", "b"]),
        ("?owner_id=&status=", ["r2", "r1", "c", "a", "b"]),
        ("?status=queued", ["c", "a", "b"]),
        ("?status=queue", ["c", "a", "b"]),
        ("?status=running", ["r2", "r1"]),
        ("?status=cancelled", ["x"]),
        ("?status=finished", ["f"]),
        ("?status=failed", []),
        ("?status=QUEUED", []),
        ("?status=nonsense", []),
        ("?owner_id=odd", ["r1", "b"]),
        ("?owner_id=Odd", []),
        ("?owner_id=od", []),
        ("?owner_id=odd&status=queued", ["b"]),
        ("?owner_id=y&status=finished", ["f"]),
    ],
)
def test_filters(queue: Api, query: str, ids: list[str]) -> None:
    assert queue.ids(query) == ids
    assert [name for page in pages(queue, f"{query}{'&' if query else '?'}limit=1") for name in page] == ids


def test_failed_ones(queue: Api) -> None:
    Entry.objects.filter(request_id="r1").update(status="failed", ended_at=now(), message="never accepted")
    assert queue.ids("?status=failed") == ["r1"]
    assert queue.ids() == ["r2", "c", "a", "b"]
    assert queue.entry("r1")["CallbackError"] == "never accepted"
    assert queue.entry("r1")["DeletedAt"]


def test_owners_are_compared_exactly(api: Api) -> None:
    for number, owner in enumerate((" y", "y", "y%", "é")):
        api.create(f"a{number}", owner_id=owner)
    for number, owner in enumerate((" y", "y", "y%", "é")):
        assert api.ids(f"?owner_id={quote(owner)}") == [f"a{number}"]


def test_pages(queue: Api) -> None:
    assert pages(queue, "?limit=2") == [["r2", "r1"], ["c", "a"], ["b"]]
    assert pages(queue, "?limit=3") == [["r2", "r1", "c"], ["a", "b"]]
    assert pages(queue, "?limit=5") == [["r2", "r1", "c", "a", "b"]]
    assert pages(queue, "?limit=1000") == [["r2", "r1", "c", "a", "b"]]


def test_pages_within_one_number(api: Api) -> None:
    for number in range(7):
        api.create(f"a{number}")
        api.move(f"a{number}", priority=-5)
    assert pages(api, "?limit=3") == [["a0", "a1", "a2"], ["a3", "a4", "a5"], ["a6"]]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?limit=x", "limit"),
        ("?cursor=x", "cursor"),
        ("?cursor=q5.!", "cursor"),
        ("?cursor=r5.5&status=queued", "cursor"),
        ("?cursor=q99999999999999999999.V", "cursor"),
    ],
)
def test_pages_that_cannot_be(queue: Api, query: str, field: str) -> None:
    assert field in error(queue.get(f"/v1/vm/{query}"), 400)[1]


def test_more_than_the_operators_cap(queue: Api, settings: Any) -> None:
    settings.GANTRY_LIST_CAP = 3
    answer = queue.get("/v1/vm/")
    assert [entry["RequestID"] for entry in data(answer)] == ["r2", "r1", "c"]
    assert "3" in answer.headers["Warning"]
    url = answer.headers["Link"].partition(">")[0].removeprefix("<http://testserver")
    assert [entry["RequestID"] for entry in data(queue.get(url))] == ["a", "b"]
    settings.GANTRY_LIST_CAP = 5
    assert "Link" not in queue.get("/v1/vm/").headers


def test_more_than_is_read_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from queues.entries import reading

    monkeypatch.setattr(reading, "BATCH", 2)
    names = [f"a{number}" for number in range(7)]
    for name in names:
        api.create(name)
    assert api.ids() == names
    assert api.ids("?limit=5") == names[:5]


def test_what_changes_while_a_list_is_read(queue: Api) -> None:
    """Nobody is left out or told twice; what has ended meanwhile is not shown."""
    answer = queue.get("/v1/vm/")
    admit("a")
    queue.delete("/v1/vm/c")
    queue.move("b", priority=-5)
    queue.create("new")
    assert [entry["RequestID"] for entry in data(answer)] == ["r2", "r1", "a", "b"]


def test_other_types_and_tenants_are_not_listed(queue: Api, stranger: Api) -> None:
    queue.create("k", kind="gpu", data={"a": 1})
    assert queue.ids(kind="gpu") == ["k"]
    assert stranger.ids() == []
    for query in ("?status=running", "?status=finished", "?limit=5", "?owner_id=y"):
        assert stranger.ids(query) == []


def test_head(queue: Api) -> None:
    answer = queue.send("HEAD", "/v1/vm/")
    assert answer.status_code == 200
    assert answer.getvalue() == b""
