"""Output on its whole way: a command on a real node, its files, the chunks, and what a client reads."""

from __future__ import annotations

import base64

import pytest
from django.test import RequestFactory

from tests.support.cluster import Cluster
from tests.support.engine import wait_final
from tests.support.fixtures import Account
from tests.unit.addresses.web_server import Server, plain
from workers import services
from workers.api.runs.logs import log_response
from workers.models import Attempt, LogChunk, Run, Secret
from workers.upkeep import retention
from workers.vocabulary.errors import Conflict
from workers.vocabulary.specs import ProcessSpec
from workers.vocabulary.states import Reason, State

KIB = 1024


def submitted(account: Account, command: str, *, uris: list[str] | None = None) -> int:
    spec = ProcessSpec(
        argv=["/bin/sh", "-c", command],
        uris=uris or [],
        cpu_m=100,
        mem_mb=64,
        log_head=64 * KIB,
        log_tail=128 * KIB,
    )
    return services.submit(
        services.Submission(tenant_id=account.tenant_id, family="tasks", spec=spec, name="log")
    )


def test_head_and_tail_of_a_talkative_command_are_the_truth(cluster: Cluster, account: Account) -> None:
    cluster.node()
    run_id = submitted(account, "seq -f 'line %09.0f' 1 2000000; echo only this >&2")

    (run,) = wait_final(run_id)

    truth = b"".join(b"line %09d\n" % number for number in range(1, 2_000_001))
    attempt = Attempt.objects.get(run_id=run_id)
    assert run.state == State.SUCCEEDED
    assert (attempt.log_bytes, attempt.log_truncated) == (len(truth) + 10, True)
    request = RequestFactory().get("/logs?stream=stdout")
    head, mark, tail = log_response(request, run).getvalue().partition(b"\n[... ")
    left_out, _, tail = tail.partition(b" bytes left out: output over the limit of 0.1875 MiB ...]\n")
    assert mark
    assert len(head) >= 64 * KIB
    assert len(tail) >= 128 * KIB
    assert truth.startswith(head)
    assert truth.endswith(tail)
    assert len(head) + int(left_out) + len(tail) == len(truth)
    assert log_response(RequestFactory().get("/logs?stream=stderr"), run).getvalue() == b"only this\n"
    assert sum(len(chunk.data) for chunk in LogChunk.objects.filter(run_id=run_id)) < 1024 * KIB


def test_uris_are_there_before_the_command_starts(cluster: Cluster, account: Account) -> None:
    server = Server()
    server.answers["/greeting.sh"] = plain(b"echo hello from a file\n")
    server.answers["/gone"] = plain(b"", 404)
    try:
        cluster.node(GANTRY_URI_ALLOW_NETWORKS="127.0.0.0/8")
        good = submitted(account, "sh ./greeting.sh", uris=[server.url("/greeting.sh")])
        bad = submitted(account, "echo never", uris=[server.url("/gone")])
        fetched, failed = wait_final(good, bad)
    finally:
        server.close()

    assert log_response(RequestFactory().get("/logs"), fetched).getvalue() == b"hello from a file\n"
    assert (failed.state, failed.reason) == (State.FAILED, Reason.INPUT)
    assert "/gone: the server answered 404 Not Found" in failed.message


def test_credentials_in_uris_are_secrets_of_the_run(cluster: Cluster, account: Account) -> None:
    """They reach the server, stand nowhere in the clear, stay while the run waits, go when it has ended."""
    server = Server()
    server.answers["/private.sh"] = plain(b"echo private\n")
    address = server.url("/private.sh?a=ann:pw@x").replace("://", "://ann:p%40ss%2Fword@")
    try:
        waits = submitted(account, "sh ./private.sh", uris=[server.url("/private.sh"), address])
        waits_too = submitted(account, "true", uris=[address])
        specs = list(Run.objects.order_by("pk").values_list("spec", flat=True))
        assert "p%40ss" not in repr(specs)
        assert specs[0]["uris"] == [
            server.url("/private.sh"),
            server.url("/private.sh?a=ann:pw@x").replace("://", "://***@"),
        ]
        assert all(b"p%40ss" not in bytes(row.ciphertext) for row in Secret.objects.all())
        assert retention.prune_once(100)["run_secrets"] == 0, "they are needed"
        services.cancel(account.tenant_id, waits_too)
        assert [retention.prune_once(1)["run_secrets"] for _ in range(3)].count(1) == 1
        assert list(Secret.objects.values_list("run_id", flat=True)) == [waits]
        cluster.node(GANTRY_URI_ALLOW_NETWORKS="127.0.0.0/8")
        (failed,) = wait_final(waits)
        assert (failed.reason, "two uris have the file name" in failed.message) == (Reason.INPUT, True)
        (fetched,) = wait_final(submitted(account, "sh ./private.sh", uris=[address]))
    finally:
        server.close()
    assert log_response(RequestFactory().get("/logs"), fetched).getvalue() == b"private\n"
    (seen,) = server.seen
    assert seen[1]["authorization"] == f"Basic {base64.b64encode(b'ann:p@ss/word').decode()}"
    retention.prune_once(100)
    assert not Secret.objects.exists()
    with pytest.raises(Conflict, match="were wiped at its end: submit it anew"):
        services.retry(account.tenant_id, fetched.pk)
