"""Which authentication an address speaks: told by its path, else by a list of versions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from tests.unit.addresses.web_server import Answer, Server, plain
from workers.addresses import Deadline
from workers.addresses.sessions import guarded_session
from workers.storage.base import StorageFailed, Trouble
from workers.storage.swift.auth import Identity
from workers.vocabulary.staging import Store


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    settings.GANTRY_SWIFT_ALLOW_NETWORKS = ["127.0.0.0/8"]
    server = Server()
    yield server
    server.close()


def version_of(url: str, version: str = "") -> tuple[str, str]:
    identity = Identity(Store(auth_url=url, auth_version=version, user="u", tenant="t", key="k"))
    with guarded_session(purpose="swift", deadline=Deadline(60.0)) as session:
        return identity._version(session)


@pytest.mark.parametrize(
    ("path", "given", "version", "end"),
    [
        *(("/auth/v1.0", "", "1", "/auth/v1.0"), ("/auth/v1.0/", "1", "1", "/auth/v1.0")),
        *(("/auth/v1", "", "1", "/auth/v1.0"), ("/auth/1.0", "1.0", "1", "/auth/1.0")),
        *(
            ("/short/v1.0", "", "1", "/short/v1.0"),
            ("", "1", "1", "/auth/v1.0"),
            ("/auth/", "1", "1", "/auth/v1.0"),
        ),
        *(
            ("/v2.0", "", "2", "/v2.0"),
            ("/v2.0/", "2.0", "2", "/v2.0"),
            ("/identity", "v2", "2", "/identity/v2.0"),
        ),
        *(
            ("/v2.0/tokens", "", "2", "/v2.0"),
            ("/v3", "", "3", "/v3"),
            ("/identity/v3/", "3", "3", "/identity/v3"),
        ),
        *(("/v3/auth/tokens", "", "3", "/v3"), ("/v2.0", "3", "3", "/v3"), ("/", "3", "3", "/v3")),
        ("/v3?x#y", "", "3", "/v3"),
    ],
)
def test_by_the_path_or_as_given(path: str, given: str, version: str, end: str) -> None:
    assert version_of(f"http://a.test{path}", given) == (version, f"http://a.test{end}")


V3 = '{"versions": {"values": [{"id": "v3.14", "status": "stable"}, {"id": "v2.0"}]}}'
V2 = '{"versions": {"values": [{"id": "v2.0", "status": "deprecated"}]}}'


@pytest.mark.parametrize(
    ("answer", "version", "end"),
    [
        *((plain(V3.encode(), status=300), "3", "/v3"), (plain(V2.encode()), "2", "/v2.0")),
        *((plain(b"It works!"), "1", "/auth/v1.0"), (plain(V3.encode(), status=404), "1", "/auth/v1.0")),
    ],
)
def test_by_the_list_of_versions(server: Server, answer: Answer, version: str, end: str) -> None:
    server.answers["/"] = answer
    for path in ("", "/"):
        assert version_of(server.url("/").rstrip("/") + path) == (version, server.url(end))


def test_what_is_no_version() -> None:
    with pytest.raises(StorageFailed, match="none of 1, 2 and 3") as caught:
        version_of("http://a.test/v3", "4")
    assert caught.value.trouble is Trouble.OTHER
