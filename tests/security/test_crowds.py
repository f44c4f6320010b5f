"""Nobody stops the others: 300 connections that get nowhere, of five kinds; everybody else is answered."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator

import httpx
import psutil
import pytest
from django.conf import settings
from django.db import connection, transaction

from tests.integration.logs.log_runs import STDOUT, LoggedRun, running
from tests.support.cluster import Api, Cluster
from tests.support.crowd import Crowd, rest
from tests.support.fixtures import Account, make_account
from tests.support.waiting import limit, wait_until
from workers.logs import signed_urls, store
from workers.models import Run

MIB = 1024 * 1024
BODY = b'{"taskName": "crowd", "commands": "true"}'


def _write(run: LoggedRun, mebibytes: int) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        for number in range(mebibytes):
            store.insert(cursor, [(run.id, run.attempt, STDOUT, number * MIB, b"x" * MIB)])


def _answers(api: Api, account: Account) -> Iterator[tuple[str, int]]:
    """What everybody else does, and its status."""
    with httpx.Client(base_url=api.url, headers=account.headers, timeout=limit(60)) as client:
        yield "health", client.get("/healthz").status_code
        yield "submit", client.post("/v1/tasks", content=BODY).status_code
        yield "list", client.get("/api/v1/runs").status_code
        yield "page", client.get("/admin/login/").status_code
        yield "static", client.get("/static/admin/css/base.css").status_code


def _held(api: Api) -> set[int]:
    """The ports of clients with which the API's processes hold a connection."""
    family = [psutil.Process(api.pid), *psutil.Process(api.pid).children(recursive=True)]
    return {
        link.raddr.port
        for process in family
        for link in process.net_connections("tcp")
        if link.status == psutil.CONN_ESTABLISHED
    }


@pytest.mark.invariant
def test_a_crowd_that_gets_nowhere_stops_nobody(cluster: Cluster) -> None:
    """Catches a thread that waits for a client: a reader, a follower, a body, a header, nothing at all; and a
    log that was cut off and looks whole."""
    victim, other = make_account("log-tests"), make_account("other")
    long, theirs = running(), running()
    _write(long, 10)
    _write(theirs, 2)
    Run.objects.filter(pk=theirs.id).update(tenant_id=other.tenant_id)
    api = cluster.api(threads=4, GANTRY_SILENCE_S="6", DJANGO_SECRET_KEY=settings.SECRET_KEY)
    path = f"/v1/tasks/{long.id}/logs"
    signed = signed_urls.log_url(path, "stdout")
    log, follow = signed[signed.index(path) :], f"{path}?follow=1"
    with Crowd(api.url, log=log, follow=follow, token=victim.token) as crowd:
        for _ in range(5):
            crowd.drip()
            assert {what: status for what, status in _answers(api, other) if status != 200} == {}
        # Those who wait for a place may get the one of somebody who has been cut off: counts are not exact.
        told = [wire.recv(12, socket.MSG_PEEK) for wire in crowd.readers]
        begun = [wire for wire, status in zip(crowd.readers, told, strict=True) if status.endswith(b" 200")]
        assert 4 <= len(begun) < 30, "a signed URL has a share"
        statuses = Counter(wire.recv(12)[-3:] for wire in crowd.followers)
        assert set(statuses) == {b"200", b"503"}
        assert statuses[b"200"] <= 16, "their tenant has one, too"
        whole = httpx.get(f"{api.url}/api/v1/runs/{theirs.id}/logs", headers=other.headers, timeout=limit(60))
        assert (whole.status_code, len(whole.content)) == (200, 2 * MIB), "long answers of others go on"
        ports = {wire.getsockname()[1] for wire in begun}
        wait_until(lambda: not ports & _held(api), why="who takes nothing is cut off")
        for data, was_cut in map(rest, begun):
            assert was_cut
            assert len(data) < 10 * MIB

    def followed() -> int:
        with httpx.stream("GET", f"{api.url}{follow}", headers=victim.headers, timeout=limit(60)) as answer:
            return answer.status_code == 200

    wait_until(followed, why="the places of those who have gone are free")
