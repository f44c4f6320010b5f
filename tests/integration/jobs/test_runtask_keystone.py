"""Submissions against a real Keystone v3 in front of a Swift: good ones, wrong ones, domains, versions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from jobs.runtask import swift as asking
from tests.integration.jobs.test_runtask_swift import api, refused
from tests.support import swift as swifts
from tests.support.session import SESSION
from tests.support.swift import Swift
from tests.support.waiting import limit

if TYPE_CHECKING:
    from tests.contracts.runtask.conftest import Api
    from tests.support.openstack import Cloud

__all__ = ["api"]

#: One process has the Keystone, whatever asks for it.
pytestmark = [pytest.mark.xdist_group("openstack"), pytest.mark.daemons]


@pytest.fixture
def behind(cloud: Cloud, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swift]:
    settings.GANTRY_SWIFT_ALLOW_NETWORKS = ["127.0.0.0/8"]
    monkeypatch.setattr(asking, "WITHIN_S", limit(60))  # a Keystone on a busy machine takes its time
    made = swifts.started(SESSION / "runtask-swift", keystone=cloud.auth_url.removesuffix("/v3"))
    swifts.in_catalog(cloud, made)
    yield made
    swifts.removed(made)


def test_v3(api: Api, cloud: Cloud, behind: Swift) -> None:
    base = cloud.auth_url.removesuffix("/v3")
    who = {"user": "gantry", "tenant": "admin", "key": cloud.password, "cm": "true"}
    for wrong in ({"key": "wrong"}, {"tenant": "nothing"}, {"user_domain_name": "Elsewhere"}):
        assert "401 Unauthorized" in refused(api, {**who, "authurl": f"{base}/v3", **wrong})
    assert "container nothing" in refused(
        api, {**who, "cm": "", "authurl": base, "container_name": "nothing", "file_name": "a"}
    )
    for more in (
        {"authurl": f"{base}/v3"},
        {"authurl": f"{base}/v3/"},
        {"authurl": base},
        {"authurl": base, "auth_version": "3", "user_domain_name": "Default", "project_domain_name": "None"},
    ):
        answer = api.form("/runtask/", {**who, **more})
        assert answer.status_code == 200, answer.content
