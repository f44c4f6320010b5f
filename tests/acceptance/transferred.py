"""What an account has of the workqueue: sites, jobs in each state, and how requests name them."""

from __future__ import annotations

import json
import zlib
from typing import Any, Final

from django.db.models.functions import Now

from tests.support.fixtures import Account
from workers.tenants import tenancy
from workqueue.jobs import requests, services
from workqueue.models import Element, ElementAttempt, Job, Link, LinkChange, ListingPart
from workqueue.models.jobs import Status, Type
from workqueue.pull import claiming
from workqueue.pull import wire as pulled
from workqueue.sites import credentials
from workqueue.sites import requests as site_requests
from workqueue.sites import services as sites
from workqueue.who import Who

MOUNTS: Final = ("/workqueue/api/v1.0", "/workqueue/api/v1.1")


def transfers(account: Account, mark: str) -> dict[str, list[dict[str, Any]]]:
    """Rows by the beginning of the operations that take them, as in ``belongings``."""
    who = Who(account.tenant_id, tenancy.find_user(account.user).pk)
    site = _site(who, f"{mark}-site")
    listed = _job(who, site, "list", mark)
    _end(listed, Status.DONE, f"{mark}-log")
    copy = {"src_siteid": site, "src_filepath": f"{mark}-a", "dst_siteid": site, "dst_filepath": "b"}
    found: dict[str, list[dict[str, Any]]] = _pulled(who, mark)
    for number, at in enumerate(MOUNTS):
        spare, banned = (_site(who, f"{mark}-{name}-{number}") for name in ("spare", "banned"))
        failed, waiting = _job(who, site, "copy", mark), _job(who, site, "mkdir", mark)
        _end(failed, Status.FAILED, f"{mark}-log")
        one = f"{at}/sites/{{site_id}}"
        found |= {
            f"{at}/jobs/": [{"job_id": listed.pk, "element_id": 0, "attempt": 1}],
            f"POST {at}/jobs/{{job_id}}/retry": [{"job_id": failed.pk}],
            f"POST {at}/jobs/{{job_id}}/cancel": [{"job_id": waiting.pk}],
            **{f"{at}/{name}": [{"body": copy}] for name in ("list", "copy", "remove", "rename", "mkdir")},
            f"POST {at}/jobs": [{"body": {**copy, "type": "1"}}],
            f"POST {at}/sites": [{"body": _body(f"{mark}-new-{number}")}],
            one: [{"site_id": site}],
            f"PUT {one}": [{"site_id": spare, "body": _body(f"{mark}-renamed-{number}")}],
            f"DELETE {one}": [{"site_id": spare}],
            **{f"{method} {one}/credentials": [{"site_id": site}] for method in ("PUT", "DELETE")},
            f"PUT {one}/limits": [{"site_id": banned}],
            **{f"{method} {one}/ban": [{"site_id": banned}] for method in ("PUT", "DELETE")},
        }
    return found


def _pulled(who: Who, mark: str) -> dict[str, list[dict[str, Any]]]:
    """Work for pull workers, and elements that one has: their tokens come as ``headers``."""
    body = {
        **_body(f"{mark}-pulled"),
        "endpoints": [{"protocol": "SSH", "host": "pull.example", "path": "/"}],
    }
    site = sites.create(who, site_requests.parse_site(body)).pk
    sent = {"src_siteid": site, "src_filepath": f"{mark}-made", "dst_filepath": "b", "protocol": "SSH"}
    found: dict[str, list[dict[str, Any]]] = {"/site/api/v1.0/endpoint/": [{"site_id": site}]}
    # Of a type of its own for each mount: calls of one leave work for those of the other.
    for at, kind in zip(MOUNTS, (Type.MKDIR, Type.RENAME), strict=True):
        for _ in range(20):
            services.register(who, requests.parse(sent, kind), "")
        one = {"types": [kind], "algorithm": "BY_NUMBER", "algorithm.args": {"limit": 1}}
        found[f"POST {at}/worker/jobs"] = [{"body": one}]
        for call in ("", "/monitoring"):
            limits = claiming.Limits(number=1)
            (handed,) = claiming.claim([who.tenant_id], [kind], limits, f"{mark}-worker")
            (element,) = pulled.render(handed)["elements"]
            row = {"job_id": handed.job.pk, "element_id": 0, "headers": {"X-Token": element["token"]}}
            if kind == Type.RENAME and not call:
                row["body"] = {"returncode": 1, "host": "h", "log": "", "timestamp": "t"}
            found[f"PUT {at}/worker/jobs/{{job_id}}/elements/{{element_id}}{call}"] = [row]
    return found


def _body(name: str) -> dict[str, Any]:
    endpoint = {"protocol": "SFTP", "host": "files.example", "path": f"/{name}"}
    return {"name": name, "endpoints": [endpoint], "visibility": "tenant"}


def _site(who: Who, name: str) -> int:
    """A site with credentials of the account, and a link to itself that changed once."""
    site = sites.create(who, site_requests.parse_site(_body(name)))
    known = {"username": f"{name}-user", "password": f"{name}-password"}
    credentials.put(who, site.pk, site_requests.parse_credentials(known))
    link = Link.objects.create(source=site, target=site, streams=4, sentence=f"{name}-sentence")
    LinkChange.objects.create(link=link, streams_before=2, streams=4, sentence=f"{name}-sentence")
    return site.pk


def _job(who: Who, site: int, kind: str, mark: str) -> Job:
    sent = {"src_siteid": site, "src_filepath": f"{mark}-path", "dst_siteid": site, "dst_filepath": "b"}
    return services.register(who, requests.parse(sent, Type[kind.upper()]), f"http://{mark}.example/")


def _end(job: Job, status: Status, log: str) -> None:
    """Its element 0 has ended."""
    Element.objects.filter(job=job).update(status=status, attempts=1, transferred=5, elapsed=2.0)
    line = {"r": "folder", "n": 0, "d": job.src_filepath, "e": [["f", 33188, 1, 2, 1, 0, 0, 2, 2]]}
    ElementAttempt.objects.create(
        job=job, number=0, attempt=1, status=status, returncode=0, host="h", told_at="then", log=log,
        listing_count=1,
    )  # fmt: skip
    ListingPart.objects.create(
        job=job, number=0, attempt=1, report=0, names=1,
        data=zlib.compress(json.dumps({**line, "first": True, "last": True}).encode() + b"\n"),
    )  # fmt: skip
    done, failed = int(status == Status.DONE), int(status == Status.FAILED)
    Job.objects.filter(pk=job.pk).update(num_new=0, num_done=done, num_failed=failed, finished_at=Now())
