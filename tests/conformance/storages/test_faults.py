"""Swift, the network before it and the caller break in the middle: what is told, and what is left."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from tests.conformance.storages.subjects import MIB, Source, expired, fails, read
from tests.support.proxy import Proxy
from tests.support.swift import KEY, Swift
from tests.support.waiting import limit
from workers.storage.base import StorageFailed, Trouble
from workers.storage.swift import SwiftStorage, segments, writing


class _CancelledError(Exception):
    pass


class _Cancel(OSError):
    """As some callers raise it: an exception that libraries take for the network's."""


def test_stopped_in_the_middle_and_back(mortal_swift: Swift, source: Source) -> None:
    """Every step kills its servers once and starts them again."""
    _stopped_while_it_is_read(mortal_swift, source)
    for size in (MIB, 3 * MIB):
        _stopped_while_it_is_stored(mortal_swift, source, size)


def _stopped_while_it_is_read(swift: Swift, source: Source) -> None:
    """Catches a half content that ends like a whole one, and a second half that does not fit."""
    container, storage = swift.container(), swift.storage()
    content = source.fill(24 * MIB)
    version = source.store(storage, f"{container}/a").version
    got = bytearray()
    with fails(Trouble.AWAY), storage.read(f"{container}/a") as pieces:
        for piece in pieces:
            got += piece
            if swift.running:
                swift.stop()
    assert 0 < len(got) < len(content)
    with fails(Trouble.AWAY, "connection refused"):
        storage.stat(f"{container}/a")
    swift.start()  # tokens are forgotten, too
    assert got + read(storage, f"{container}/a", offset=len(got), version=version) == content
    storage.close()


def _stopped_while_it_is_stored(swift: Swift, source: Source, size: int) -> None:
    """Catches an upload that is taken for done, and a first object that is gone."""
    container, storage = swift.container(), swift.storage()
    old = source.fill(10)
    source.store(storage, f"{container}/a", "old")
    content = source.fill(size)
    with fails(Trouble.AWAY):
        source.store(storage, f"{container}/a", commit=swift.stop)
    swift.start()
    assert swift.get(f"{container}/a") == old
    before = len(swift.requests())
    source.store(storage, f"{container}/a")
    sent = [path for method, path, *_ in swift.requests()[before:] if method == "PUT" and "/0" in path]
    assert sent == []  # segments were there
    assert swift.get(f"{container}/a") == content
    storage.close()


def test_tokens_expire_in_the_middle(swift: Swift, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an upload that ends with its token, and one that asks for tokens without end."""
    storage = SwiftStorage(swift.store(auth="/short/v1.0"), segment_bytes=MIB)
    container = swift.container()  # of the other account: its name is free here
    content = source.fill(3 * MIB)
    put_segment = segments._put_segment

    def put_late(connection: Any, place: str, segment: str, *more: Any) -> str:
        if segment.endswith("2"):
            expired(swift, storage)
        return put_segment(connection, place, segment, *more)

    monkeypatch.setattr(segments, "_put_segment", put_late)
    before = len(swift.requests())
    source.store(storage, f"{container}/a", make_container=True, commit=lambda: expired(swift, storage))
    requests = swift.requests()[before:]
    assert [path for _, path, *_ in requests].count("/short/v1.0") == 3
    refused = [path for method, path, _, status in requests if status == 401 and method == "PUT"]
    assert len(refused) == 2
    assert sum(source.moved) == 3 * MIB
    expired(swift, storage)
    assert read(storage, f"{container}/a") == content
    storage.close()


def test_a_small_one_after_its_token(swift: Swift, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a body that is not sent from its beginning again."""
    storage = SwiftStorage(swift.store(auth="/short/v1.0"), segment_bytes=100 * MIB)
    container = swift.container()
    content = source.fill(2 * MIB)
    source.store(storage, f"{container}/x", make_container=True)
    put_whole = writing.put_whole

    def late(*arguments: Any) -> str:
        expired(swift, storage)
        return put_whole(*arguments)

    monkeypatch.setattr(writing, "put_whole", late)
    source.store(storage, f"{container}/a")
    assert sum(source.moved) == 2 * MIB
    assert read(storage, f"{container}/a") == content
    storage.close()


@pytest.mark.parametrize("size", [MIB, 4 * MIB])
def test_damaged_on_its_way_out(swift: Swift, source: Source, size: int) -> None:
    """Catches an object, or a manifest over a segment, that is not what was sent."""
    container = swift.container()
    with swift.through() as proxy:
        storage = SwiftStorage(swift.store(proxy), segment_bytes=MIB)
        old = source.fill(10)
        source.store(storage, f"{container}/a", "old")
        content = source.fill(size)
        proxy.flip(size // 2, outward=True)
        with fails(Trouble.DAMAGED, "damaged on its way" if size > MIB else "said 422"):
            source.store(storage, f"{container}/a")
        assert swift.get(f"{container}/a") == old
        source.store(storage, f"{container}/a")
        assert swift.get(f"{container}/a") == content
        storage.close()


@pytest.mark.parametrize("size", [MIB, 4 * MIB])
def test_damaged_on_its_way_in(swift: Swift, source: Source, size: int) -> None:
    """Catches an input that is not what Swift has."""
    container = swift.container()
    with swift.through() as proxy:
        storage = SwiftStorage(swift.store(proxy), segment_bytes=MIB)
        content = source.fill(size)
        source.store(storage, f"{container}/a")
        proxy.flip(size // 2, outward=False)
        with fails(Trouble.DAMAGED, "MD5"):
            read(storage, f"{container}/a")
        assert read(storage, f"{container}/a") == content
        storage.close()


def _do(act: str, storage: SwiftStorage, path: str, source: Source, proxy: Proxy) -> None:
    if act in ("authenticate", "stat"):
        storage.stat(path)
    elif act == "read":
        with storage.read(path) as pieces:
            proxy.freeze()
            for _ in pieces:
                pass
    else:
        proxy.freeze_after(200_000)
        source.store(storage, path, "new")


@pytest.mark.parametrize(
    ("act", "raised"),
    [
        *(("authenticate", _Cancel), ("stat", _CancelledError), ("read", _Cancel)),
        *(("store", _Cancel), ("segments", _Cancel)),
    ],
)
def test_a_cancel_ends_the_wait_for_a_silent_server(
    swift: Swift, source: Source, act: str, raised: type[Exception]
) -> None:
    """Catches a cancel that has to wait for a server which says nothing, or that looks like a failure."""
    container = swift.container()
    since: list[float] = []

    def tick() -> None:
        if since and time.monotonic() > since[0]:
            raise raised

    with swift.through() as proxy:
        storage = SwiftStorage(swift.store(proxy), tick, segment_bytes=20 * MIB)
        source.fill((30 if act == "segments" else 10) * MIB)
        if act != "authenticate":
            source.store(storage, f"{container}/a", "old")
        begin = time.monotonic()
        if act in ("authenticate", "stat"):
            proxy.freeze()
        since.append(begin + 0.7)
        with pytest.raises(raised):
            _do(act, storage, f"{container}/a", source, proxy)
        assert time.monotonic() - begin < limit(10)
        proxy.thaw()
        storage.close()


def test_a_silent_server_is_given_up(swift: Swift) -> None:
    """Catches a run that waits for ever, and a request that keeps its client waiting."""
    with swift.through() as proxy:
        proxy.freeze()
        storage = SwiftStorage(swift.store(proxy), stall_s=0.6)
        with fails(Trouble.AWAY, "nothing came for 0.6 s"):
            storage.check()
        storage.close()
        storage = SwiftStorage(swift.store(proxy), total_s=0.7)
        with fails(Trouble.AWAY, "longer than 0.7 s"):
            storage.check()
        storage.close()


def test_nothing_secret_is_logged(
    swift: Swift, source: Source, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Catches keys, tokens and paths in the debug lines of the libraries between."""
    container = swift.container()
    with caplog.at_level(logging.DEBUG):
        for name in (
            "swiftclient",
            "keystoneauth",
            "keystoneauth.session",
            "keystoneauth.identity",
            "urllib3",
        ):
            logging.getLogger(name).setLevel(logging.DEBUG)
        storage = swift.storage()
        source.fill(2 * MIB)
        source.store(storage, f"{container}/a")
        read(storage, f"{container}/a")
        with pytest.raises(StorageFailed) as caught:
            storage.stat(f"{container}/b")
        access = storage._connection._account._access
        assert access is not None
    told = caplog.text + "".join(capfd.readouterr()) + str(caught.value) + repr(storage) + repr(access)
    token = access.token
    assert KEY not in told
    assert token not in told
    assert token[:16] not in told
    ours = ("swiftclient", "keystoneauth", "urllib3", "requests")
    assert [record for record in caplog.records if record.name.startswith(ours)] == []
    storage.close()
