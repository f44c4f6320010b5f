"""The OpenAPI document of the family agrees with what is read and written by hand; its clients work."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.contracts.generated import generated_client
from tests.contracts.workqueue.conftest import ENDPOINT, V11, Api, Filled, folder, member, ok
from workqueue.documented import WorkqueueErrorBodySerializer, WorkqueueErrorSerializer
from workqueue.errors import render_error
from workqueue.jobs import requests, serializers
from workqueue.jobs.options import check
from workqueue.models.jobs import Status, Type
from workqueue.sites import requests as site_requests
from workqueue.sites import serializers as site_serializers

#: Path -> methods, below each of the two mounts.
ROUTES = {
    "/jobs": ["get", "post"],
    **{f"/{name}": ["post"] for name in ("list", "copy", "remove", "rename", "mkdir")},
    **{f"/jobs/{{job_id}}{rest}": ["get"] for rest in ("", "/output", "/status", "/progress", "/explain")},
    **{f"/jobs/{{job_id}}/{name}": ["post"] for name in ("cancel", "retry")},
    "/jobs/{job_id}/elements": ["get"],
    **{
        f"/jobs/{{job_id}}/elements/{{element_id}}{rest}": ["get"]
        for rest in ("", "/status", "/output", "/output/{attempt}")
    },
    "/sites": ["get", "post"],
    "/sites/{site_id}": ["delete", "get", "put"],
    "/sites/{site_id}/credentials": ["delete", "put"],
    "/sites/{site_id}/ban": ["delete", "put"],
    "/sites/{site_id}/limits": ["put"],
    "/sites/{site_id}/links": ["get"],
}


def fields(serializer: Any) -> set[str]:
    return set(serializer().get_fields())


class Watched(dict[str, Any]):
    """Which keys are looked at."""

    def __init__(self, **given: Any) -> None:
        super().__init__(given)
        self.seen: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(key)
        return super().get(key, default)


def test_what_is_written_is_what_is_documented(api: Api, site: int) -> None:
    told = render_error(400, "invalid", "x", "field")
    assert set(told) == fields(WorkqueueErrorSerializer)
    assert set(told["error"]) == fields(WorkqueueErrorBodySerializer)
    filled = Filled(api.job("copy", src_siteid=site, dst_siteid=site, dst_filepath="b")["id"])
    filled.element(
        0,
        Type.LIST,
        Status.DONE,
        (Status.DONE, "x"),
        src_filepath="d",
        transferred=1,
        elapsed=1.0,
        escaped=True,
    )
    filled.listing(0, folder("d", *(f"f{number}" for number in range(10_001))))
    filled.count(num_done=1)
    path = f"/jobs/{filled.job.pk}"
    s = serializers
    one: list[tuple[str, type[Any]]] = [
        (path, s.TransferSerializer),
        (V11 + path, s.LaterTransferSerializer),
        (f"{path}/elements/0/output", s.TransferOutputSerializer),
        (f"{V11}{path}/elements/0/output/1", s.LaterTransferOutputSerializer),
        (f"{path}/status", s.TransferStatusSerializer),
        (f"{path}/elements/0/status", s.TransferElementStatusSerializer),
        (f"{path}/progress", s.TransferProgressSerializer),
        (f"{path}/explain", s.TransferExplanationSerializer),
        (f"/sites/{site}", site_serializers.SiteSerializer),
    ]
    for at, shape in one:
        assert set(ok(api.get(at))) == fields(shape), at
    many: list[tuple[str, type[Any]]] = [
        ("/jobs", s.CountedTransferSerializer),
        (f"{V11}/jobs", s.LaterCountedTransferSerializer),
        (f"{V11}{path}/elements", s.LaterTransferElementSerializer),
    ]
    for at, shape in many:
        assert set(ok(api.get(at))[0]) == fields(shape), at
    element = ok(api.get(f"{path}/elements"))[0]
    assert {*element, "dst_filepath"} == fields(s.TransferElementSerializer)
    (later,) = ok(api.get(f"{V11}{path}/elements"))
    assert set(later["monitoring_info"]) == fields(s.MonitoringSerializer)


def test_what_is_read_is_what_is_documented() -> None:
    sent = Watched(src_siteid=1, src_filepath="a", dst_siteid=2, dst_filepath="b", type=1)
    for kind, shape in (
        (None, serializers.TransferBodySerializer),
        (Type.LIST, serializers.TransferListBodySerializer),
        (Type.REMOVE, serializers.TransferListBodySerializer),
        (Type.MKDIR, serializers.TransferListBodySerializer),
        (Type.RENAME, serializers.TransferRenameBodySerializer),
        (Type.COPY, serializers.TransferCopyBodySerializer),
    ):
        sent.seen.clear()
        requests.parse(sent, kind)
        assert sent.seen == fields(shape), kind
    options = Watched()
    check(options)
    assert options.seen == {*fields(serializers.TransferOptionsSerializer), "parents"}
    site = Watched(name="s", endpoints=[ENDPOINT])
    site_requests.parse_site(site)
    assert site.seen == fields(site_serializers.SiteBodySerializer)
    known = Watched(password="x")
    site_requests.parse_credentials(known)
    assert known.seen == fields(site_serializers.SiteCredentialsBodySerializer)
    limits, ban = Watched(), Watched(mode="wait")
    site_requests.parse_limits(limits)
    site_requests.parse_ban(ban)
    assert limits.seen == fields(site_serializers.SiteLimitsSerializer)
    assert ban.seen == fields(site_serializers.SiteBanSerializer)


def test_each_route_is_listed_once_at_both_versions(api: Api) -> None:
    document = json.loads(api.get("/api/schema/?family=workqueue").content)
    found = {path: sorted(methods) for path, methods in document["paths"].items()}
    ours = {
        f"/workqueue/api/{version}{path}": methods
        for version in ("v1.0", "v1.1")
        for path, methods in ROUTES.items()
    }
    assert {path: found[path] for path in ours} == ours
    for path in ours:
        for operation in document["paths"][path].values():
            content = operation["responses"]["401"]["content"]
            assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/WorkqueueError"}


@pytest.fixture
def served(transactional_db: None, live_server: Any) -> Api:
    return member("10002", "ann")


@pytest.fixture
def package(served: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The generated package."""
    document = served.get("/api/schema/?family=workqueue").content
    with generated_client(document, "workqueue_client", tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.django_db(transaction=True)
def test_a_job_by_the_generated_client(served: Api, live_server: Any, package: ModuleType) -> None:
    models = importlib.import_module("workqueue_client.models")

    def call(room: str, name: str, *args: Any, **more: Any) -> Any:
        module = importlib.import_module(f"workqueue_client.api.{room}.workqueue_{name}")
        return module.sync(*args, client=client, **more)

    with package.AuthenticatedClient(base_url=live_server.url, token=served.token) as client:
        body = models.SiteBodyRequest.from_dict({"name": "s", "endpoints": [ENDPOINT]})
        site = call("workqueue_sites", "sites_create", body=body)
        assert site.name == "s"
        assert [each.id for each in call("workqueue_sites", "sites_list")] == [site.id]
        sent = {"src_siteid": site.id, "src_filepath": "a", "dst_siteid": site.id, "dst_filepath": "b"}
        job = call("workqueue", "copy", body=models.TransferCopyBodyRequest.from_dict(sent))
        assert (job.status, job.type_, job.dst_filepath) == ("SUBMITTED", "COPY", "b")
        made = models.TransferBodyRequest.from_dict({**sent, "type": "0"})
        assert call("workqueue", "jobs_create", body=made).type_ == "LIST"
        assert [each.num_elements for each in call("workqueue", "jobs_list")] == [1, 1]
        filled = Filled(job.id)
        filled.element(0, Type.LIST, Status.DONE, (Status.DONE, "x"), src_filepath="d")
        filled.listing(0, folder("d", "f"))
        filled.element(1, Type.COPY, Status.FAILED, (Status.FAILED, "y"), dst_filepath="b")
        filled.count(num_done=1, num_failed=1)
        elements = call("workqueue", "elements_list", job.id)
        assert elements[0].listing[0].additional_properties == {"d": ["f"]}
        later = call("workqueue", "v11_elements_list", job.id)
        assert later[0].listing.additional_properties["d"][0].name == "f"
        assert later[0].monitoring_info is None
        assert call("workqueue", "elements_status", job.id, 1).transferred == "N/A"
        assert call("workqueue", "elements_output_attempt", job.id, 1, -1).log == "y"
        assert len(call("workqueue", "v11_jobs_output", job.id)) == 2
        assert call("workqueue", "jobs_retry", job.id).retried == 1
        assert call("workqueue", "jobs_progress", job.id).num_submitted == 1
        assert call("workqueue", "jobs_retrieve", 999_999).error.code == 404
