"""Three nodes with different rack_id and data folders of their own: what goes where, and when."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from django.db import connection, transaction

from tests.acceptance.sampling import Sampler, Stream
from tests.acceptance.three import RACKS, claimed_at, node_of, reasons, three_nodes
from tests.support.beats import now
from tests.support.cluster import Cluster
from tests.support.engine import output, run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt, Node, Run
from workers.runs import transitions
from workers.vocabulary.states import FINAL, State


def cancel_all(run_ids: list[int]) -> None:
    """What has not been claimed, in one statement; what runs ends by itself, and is waited for."""
    with transaction.atomic(), connection.cursor() as cursor:
        transitions.cancel(cursor, run_ids, by="client", operator=False)
    left = Run.objects.filter(pk__in=run_ids).exclude(state__in=FINAL)
    wait_until(lambda: not left.exists(), 90, 0.1, "what runs ends", left.count)


# --- nodes that stay ----------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_where_and_when_tasks_run(
    cluster: Cluster, account: Account, stranger: Account, shared_folder: Path
) -> None:
    """On the same three nodes, one after another; each step says what it catches."""
    three_nodes(cluster)
    constraints_decide_where_a_task_runs(cluster, account)
    priority_1_goes_first_then_the_oldest(cluster, account, stranger, shared_folder)
    priority_1_passes_a_long_queue(cluster, account, shared_folder)
    a_drained_node_finishes_what_it_has_and_takes_nothing_new(cluster, account, shared_folder)
    five_hundred_tasks_of_two_tenants(cluster, account, stranger, shared_folder)


def constraints_decide_where_a_task_runs(cluster: Cluster, account: Account) -> None:
    """Catches: a constraint that is ignored, or matched against the wrong attribute.

    Where a task ran is told by the database and, against it, by the task's own working folder.
    """
    wanted: dict[int, set[str]] = {}
    for _ in range(4):
        for constraints, allowed in (
            ({"rack_id": ["r1"]}, {"n1"}),
            ({"rack_id": ["r2", "r3"]}, {"n2", "n3"}),
            ({"hostname": ["host-n2"]}, {"n2"}),
            ({"rack_id": ["r1", "r3"], "hostname": ["host-n3", "host-n2"]}, {"n3"}),
            ({}, set(RACKS)),
        ):
            wanted[submit(account.tenant_id, "pwd", constraints=constraints)] = allowed
    nowhere = submit(account.tenant_id, "pwd", constraints={"rack_id": ["r1"], "hostname": ["host-n2"]})
    wait_final(*wanted)
    for run_id, allowed in wanted.items():
        assert node_of(run_id) in allowed
        if cluster.folder.as_posix() in (folder := output(run_id).decode()):
            assert folder.startswith(f"{cluster.folder}/{node_of(run_id)}/scratch/")
    assert run(nowhere).state == State.PENDING
    assert reasons(account.tenant_id, nowhere) == [
        "node n1 has hostname host-n1, not one of [host-n2]",
        "node n2 has rack_id r2, not one of [r1]",
        "node n3 has rack_id r3, not one of [r1]",
        "node n3 has hostname host-n3, not one of [host-n2]",
    ]
    services.cancel(account.tenant_id, nowhere)
    assert_invariants(cluster)


def five_hundred_tasks_of_two_tenants(
    cluster: Cluster, account: Account, stranger: Account, shared_folder: Path
) -> None:
    """Catches: reservations above capacity at any moment, the tenant with 5 tasks behind the one with 495.

    The five are submitted after the 495, of which the first twelve hold every CPU until then. Their last one
    must start before a quarter of the others that were waiting then have started.
    """
    gate = shared_folder / "gate"
    gate.touch()
    holds = f"while test -e {gate}; do sleep 0.2; done; sleep 0.3"
    with Sampler() as seen:
        many = [submit(account.tenant_id, holds, cpu=1, mem_mb=256) for _ in range(12)]
        for run_id in many:
            wait_started(run_id)
        many += [submit(account.tenant_id, "sleep 0.3", cpu=1, mem_mb=256) for _ in range(483)]
        few = [submit(stranger.tenant_id, "sleep 0.3", cpu=1, mem_mb=256) for _ in range(5)]
        gate.unlink()
        ended = wait_final(*many, *few, timeout_s=250)
    assert {item.state for item in ended} == {State.SUCCEEDED}
    asked, served = run(few[-1]).created_at, max(claimed_at(run_id) for run_id in few)
    later = Attempt.objects.filter(run_id__in=many, claimed_at__gt=asked)
    waiting, before = later.count(), later.filter(claimed_at__lt=served).count()
    assert waiting > 200, f"only {waiting} of 495 were waiting when the five came: this proves nothing"
    assert before <= waiting / 4, f"{before} of {waiting} started before the last of the five"
    assert {name: seen.peak[name] for name in RACKS} == dict.fromkeys(RACKS, 4000), (
        "the nodes were never full"
    )
    assert {node_of(run_id) for run_id in many} == set(RACKS)
    assert_invariants(cluster)


def priority_1_goes_first_then_the_oldest(
    cluster: Cluster, account: Account, stranger: Account, shared_folder: Path
) -> None:
    """Catches: a priority that is ignored, or an order that is not by submission.

    Each takes a whole node, always the same one: one at a time, no luck.
    """
    gate = shared_folder / "gate"
    gate.touch()
    whole = partial(submit, cpu=4, constraints={"rack_id": ["r1"]})
    blocker = whole(account.tenant_id, f"while test -e {gate}; do sleep 0.05; done")
    wait_started(blocker)
    normal = [whole(owner.tenant_id, "true") for owner in (account, stranger) * 3]
    urgent = [whole(owner.tenant_id, "true", priority=1) for owner in (account, stranger) * 2]
    gate.unlink()
    wait_final(blocker, *normal, *urgent)
    assert sorted(normal + urgent, key=claimed_at) == urgent + normal
    assert_invariants(cluster)


def priority_1_passes_a_long_queue(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches: a high-priority task that waits behind normal ones on a busy cluster."""
    gate = shared_folder / "gate"
    gate.touch()
    holds = f"while test -e {gate}; do sleep 0.2; done; sleep 0.3"
    queue = [submit(account.tenant_id, holds, cpu=1) for _ in range(80)]
    wait_until(lambda: Run.objects.filter(state=State.RUNNING).count() == 12, why="the nodes are full")
    urgent = submit(account.tenant_id, "true", cpu=1, priority=1)
    gate.unlink()
    wait_final(urgent)
    asked, served = run(urgent).created_at, claimed_at(urgent)
    between = Attempt.objects.filter(run_id__in=queue, claimed_at__gt=asked, claimed_at__lt=served).count()
    # Of three nodes that look at the same moment one gets it; the others take four of the queue each.
    assert between <= 8, f"{between} normal tasks went before it"
    cancel_all(queue)
    assert_invariants(cluster)


def a_drained_node_finishes_what_it_has_and_takes_nothing_new(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches: work that is killed by a drain, or given to a draining node."""
    gate = shared_folder / "gate"
    gate.touch()
    here = {"rack_id": ["r1"]}
    running = submit(
        account.tenant_id, f"while test -e {gate}; do sleep 0.05; done; echo done", constraints=here
    )
    wait_started(running)
    services.set_node_mode("n1", "draining")
    waiting = submit(account.tenant_id, "true", constraints=here)
    anywhere = [submit(account.tenant_id, "true", cpu=1) for _ in range(20)]
    wait_final(*anywhere)
    assert {node_of(run_id) for run_id in anywhere} <= {"n2", "n3"}
    assert run(waiting).state == State.PENDING
    assert "node n1 is draining" in reasons(account.tenant_id, waiting)
    assert run(running).state == State.RUNNING
    gate.unlink()
    (ended,) = wait_final(running)
    assert (ended.state, output(running)) == (State.SUCCEEDED, b"done\n")
    assert run(waiting).state == State.PENDING
    services.set_node_mode("n1", "ready")
    (taken,) = wait_final(waiting)
    assert (taken.state, node_of(waiting)) == (State.SUCCEEDED, "n1")
    assert_invariants(cluster)


@pytest.mark.account
def test_data_folders_are_apart(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches: two nodes that share control files, so that one adopts or sweeps what the other runs."""
    three_nodes(cluster)
    gate = shared_folder / "gate"
    gate.touch()
    run_ids = [
        submit(
            account.tenant_id, f"while test -e {gate}; do sleep 0.1; done", constraints={"rack_id": [rack]}
        )
        for rack in RACKS.values()
    ]
    for run_id in run_ids:
        wait_started(run_id)
    for name, run_id in zip(RACKS, run_ids, strict=True):
        folders = {path.parts[-4] for path in cluster.folder.glob(f"*/launcher/runs/{run_id}-1")}
        assert folders == {name}
    gate.unlink()
    wait_final(*run_ids)
    assert_invariants(cluster)


@pytest.mark.timeout(900)
def test_a_large_task_starts_under_an_endless_stream_of_small_ones(
    cluster: Cluster, account: Account, stranger: Account
) -> None:
    """Catches starvation: small tasks take each CPU that becomes free, a whole node never does by itself.

    Once it has been passed over for 2 s a node is kept for it: from then on that takes no small task until
    the large one has started there, and the others go on. No reservation exceeds capacity.
    """
    cluster.env["GANTRY_RESERVE_AFTER_S"] = "2"
    three_nodes(cluster)
    large_under_a_stream(cluster, account, account)
    large_under_a_stream(cluster, account, stranger)
    # A long queue: more than the 12 CPUs could work off within the bound.
    large_under_a_stream(cluster, account, stranger, depth=400)


def large_under_a_stream(cluster: Cluster, account: Account, owner: Account, depth: int = 120) -> None:
    """One large task of ``owner`` under a stream of ``account``."""
    with Sampler(), Stream(account.tenant_id, depth) as stream:
        wait_until(lambda: stream.ended >= 24, why="the stream flows")
        large = submit(owner.tenant_id, "echo large", cpu=4)
        kept = wait_until(
            lambda: list(Node.objects.filter(reserved_for=large)) or run(large).attempt,
            every_s=0.01,
            why="a node is kept for it, unless it starts at once",
        )
        moment = now()
        (ended,) = wait_final(large)
        small = Attempt.objects.filter(run_id__in=stream.run_ids)
        if isinstance(kept, list):
            assert [node.name for node in kept] == [node_of(large)]
            meanwhile = small.filter(node=kept[0], claimed_at__range=(moment, claimed_at(large)))
            assert not meanwhile.exists(), "its node took small tasks all the same"
        there = Run.objects.filter(pk__in=stream.run_ids, created_at__lt=claimed_at(large))
        waiting = there.exclude(attempts__claimed_at__lt=claimed_at(large)).count()
        elsewhere = small.filter(claimed_at__range=(ended.created_at, claimed_at(large)))
        assert ended.state == State.SUCCEEDED
        assert waiting > 10, "the stream ran dry: this proves nothing"
        assert elsewhere.exclude(node__name=node_of(large)).exists(), "the other nodes stood still for it"
    cancel_all(stream.run_ids)
    assert_invariants(cluster)
