"""Swift behind Keystone: v3 is the real service; v2.0 a server of ours, since nothing else speaks it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.storages.subjects import MIB, Source, expired, fails, read
from tests.support import swift as swifts
from tests.support.keystone_v2 import KeystoneV2
from tests.support.session import SESSION
from tests.support.swift import Swift
from tests.support.waiting import limit
from workers.storage.base import Trouble
from workers.storage.swift import SwiftStorage, check
from workers.storage.swift import storage as storage_module
from workers.vocabulary.staging import Store

if TYPE_CHECKING:
    from tests.support.openstack import Cloud

#: One process has the Keystone, whatever asks for it.
pytestmark = pytest.mark.xdist_group("openstack")


@pytest.fixture(scope="module")
def module_swift(cloud: Cloud) -> Iterator[Swift]:
    made = swifts.started(SESSION / "keystone-swift", keystone=cloud.auth_url.removesuffix("/v3"))
    swifts.in_catalog(cloud, made)
    yield made
    swifts.removed(made)


@pytest.fixture
def behind(module_swift: Swift, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Swift:
    settings.GANTRY_SWIFT_ALLOW_NETWORKS = ["127.0.0.0/8"]
    monkeypatch.setattr(storage_module, "CHECK_S", limit(60))  # a Keystone on a busy machine takes its time
    return module_swift


def store_of(cloud: Cloud, **other: Any) -> Store:
    given = {"auth_url": cloud.auth_url, "user": "gantry", "tenant": "admin", "key": cloud.password}
    return Store(**{**given, **other})


def test_in_and_out_with_v3(behind: Swift, cloud: Cloud, source: Source) -> None:
    """Catches a token or an address of the catalog that is not used, however the address is written."""
    base = cloud.auth_url.removesuffix("/v3")
    check(store_of(cloud, auth_url=f"{base}/v3/"))
    storage = SwiftStorage(store_of(cloud, auth_url=base), segment_bytes=MIB)
    content = source.fill(2 * MIB + 1)
    source.store(storage, "v3/é a", make_container=True)
    assert read(storage, "v3/é a") == content
    storage.close()


def test_v3_refuses(behind: Swift, cloud: Cloud) -> None:
    """Catches wrong credentials that look like something else, and a key in the message."""
    for other in (
        {"key": "wrong"},
        {"user": "nobody"},
        {"tenant": "nothing"},
        {"user_domain": "Elsewhere"},
        {"project_domain": "Elsewhere"},
    ):
        with fails(Trouble.DENIED, "said 401 Unauthorized: user"):
            check(store_of(cloud, **other))
    with fails(Trouble.OTHER, "404"):
        check(store_of(cloud, auth_url=f"{cloud.auth_url.removesuffix('/v3')}/nothing/v3"))
    with fails(Trouble.DENIED, "403"):
        check(store_of(cloud, user="onlooker"), "v3")


def test_a_password_that_is_changed_meanwhile(behind: Swift, cloud: Cloud, source: Source) -> None:
    """Catches a refusal that is taken for a network's, and tokens that are asked for without end."""
    password = "another-long-password"
    storage = SwiftStorage(store_of(cloud), segment_bytes=MIB)
    source.fill(2 * MIB)
    before = source.store(storage, "changed/a", "old", make_container=True)

    def change() -> None:
        cloud.new_password("gantry", password)
        expired(behind, storage)

    try:
        with fails(Trouble.DENIED, "Keystone at"):
            source.store(storage, "changed/a", "new", commit=change)
        storage.close()
        storage = SwiftStorage(store_of(cloud, key=password))
        assert storage.stat("changed/a") == before
        storage.discard("changed/a", "new")
        storage.close()
    finally:
        cloud.new_password("gantry", cloud.password)


def test_keystone_away(behind: Swift, cloud: Cloud) -> None:
    """Catches a Keystone that is away and looks like wrong credentials."""
    cloud.keystone.cut()
    try:
        with fails(Trouble.AWAY):
            check(store_of(cloud))
    finally:
        cloud.keystone.mend()


def test_v2(swift: Swift, source: Source, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a cloud of before 2018 that is not understood, and its token in a debug line."""
    storage = None
    with KeystoneV2(swift) as keystone, caplog.at_level(logging.DEBUG):
        for path, version in (("/v2.0", ""), ("/v2.0/", "2"), ("", ""), ("/", "2.0"), ("/v2.0/tokens", "")):
            storage = SwiftStorage(swift.store(auth_url=f"{keystone.url}{path}", auth_version=version))
            storage.check()
            storage.close()
        assert storage is not None
        source.fill(100)
        container = swift.container()
        source.store(storage, f"{container}/a")
        assert keystone.asked == 5
        others: list[dict[str, Any]] = [{"key": "wrong"}, {"tenant": "nothing"}, {"user": "nobody"}]
        for other in others:
            with fails(Trouble.DENIED, "said 401 Unauthorized: user"):
                check(swift.store(**{"auth_url": f"{keystone.url}/v2.0", **other}))
    ours = ("swiftclient", "keystoneauth", "urllib3", "requests")
    assert [record for record in caplog.records if record.name.startswith(ours)] == []
