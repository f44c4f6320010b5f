"""Retries, limits and expiry as a client meets them: how long it waits, how often it is tried, why."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now

from tests.support.cluster import Cluster, Process
from tests.support.engine import output, run, states, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt, Run
from workers.vocabulary.specs import ContainerSpec
from workers.vocabulary.states import Reason, State


def reasons(tenant_id: int, run_id: int) -> list[tuple[str, str]]:
    found: Any = services.explain(tenant_id, run_id)["reasons"]
    return [(item["code"], item["message"]) for item in found if item["code"] != "broker"]


def gaps(run_id: int) -> list[float]:
    """Seconds from the end of each attempt to the claim of the next one."""
    rows = list(Attempt.objects.filter(run_id=run_id).order_by("number"))
    return [
        (later.claimed_at - earlier.finished_at).total_seconds()
        for earlier, later in pairwise(rows)
        if earlier.finished_at is not None
    ]


def due(run_id: int) -> dict[int, float]:
    """While it backs off: its last attempt, and the seconds from that one's end until the next may start."""
    row = run(run_id)
    if row.not_before is None:
        return {}
    ended = Attempt.objects.get(run_id=run_id, number=row.attempt).finished_at
    assert ended is not None
    return {row.attempt: (row.not_before - ended).total_seconds()}


def test_tries_are_spaced_further_and_further_apart_up_to_a_cap(cluster: Cluster, account: Account) -> None:
    """Catches: a retry at once, one that never comes, a backoff without an end.

    Base 0.5 s, cap 1.5 s, a tenth of jitter: 0.5, 1, 1.5, 1.5. A busy machine is later than that, but what is
    written down is exact.
    """
    cluster.env |= {"GANTRY_RETRY_BASE_S": "0.5", "GANTRY_RETRY_CAP_S": "1.5"}
    cluster.node()
    run_id = submit(account.tenant_id, "echo try; exit 7", retries=4)
    told: list[str] = []
    written: dict[int, float] = {}

    def ends() -> bool:
        told.extend(text for code, text in reasons(account.tenant_id, run_id) if code == "backoff")
        written.update(due(run_id))
        return run(run_id).state == State.FAILED

    wait_until(ends, 120, 0.02, why="its tries are used up")
    ended = run(run_id)
    assert (ended.attempt, ended.retries_left, ended.exit_code) == (5, 0, 7)
    assert told, "it did not say that it waits"
    assert all(text.endswith(": Command exited with status 7") for text in told)
    bounds = {1: (0.45, 0.55), 2: (0.9, 1.1), 3: (1.35, 1.65), 4: (1.35, 1.65)}
    for (number, (least, most)), gap in zip(bounds.items(), gaps(run_id), strict=True):
        assert gap >= least
        assert least <= written.get(number, least) <= most, written
    assert [output(run_id, attempt=number) for number in range(1, 6)] == [b"try\n"] * 5
    assert_invariants(cluster)


def test_a_run_that_waits_for_its_next_try_holds_nothing(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches: a backoff that keeps a CPU, or lets nobody else run."""
    cluster.env["GANTRY_RETRY_BASE_S"] = "60"
    cluster.node(cpus=1)
    mark = shared_folder / "mark"
    first = submit(account.tenant_id, f"echo x >> {mark}; exit 1", cpu=1, retries=1)
    wait_until(lambda: run(first).not_before, why="it failed once and waits")
    (other,) = wait_final(submit(account.tenant_id, "true", cpu=1))
    assert other.state == State.SUCCEEDED
    answer = services.cancel(account.tenant_id, first)
    assert (answer.accepted, answer.state) == (True, State.CANCELLED)
    assert mark.read_text() == "x\n"
    assert_invariants(cluster)


@pytest.mark.timeout(600)
def test_limits_and_ends_on_a_node_of_one_cpu(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """On one node, which offers commands only; each step says what it catches."""
    node = cluster.node(cpus=1, GANTRY_RUNTIMES="process")
    a_time_limit_counts_for_each_try_and_is_a_failure_like_others(cluster, account)
    a_time_limit_counts_neither_waiting_nor_earlier_tries(cluster, account, shared_folder)
    a_command_within_its_limit_is_left_alone(account)
    expiry_ends_waiting_and_nothing_else(cluster, account, shared_folder)
    waiting_for_a_container_runtime_harms_nobody(cluster, account)
    a_retry_by_hand_is_a_new_run_of_the_same(cluster, account)
    a_stopped_node_says_so(cluster, account, node)


def a_time_limit_counts_for_each_try_and_is_a_failure_like_others(cluster: Cluster, account: Account) -> None:
    """Catches: a limit that ends the tries, or is known by another reason."""
    run_id = submit(account.tenant_id, "echo up; sleep 600", cpu=1, timeout_s=4, retries=1, grace_s=0)
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.reason, ended.attempt) == (State.FAILED, Reason.TIMEOUT, 2)
    assert ended.message == "Command ran longer than its limit of 4 s and was killed"
    for attempt in Attempt.objects.filter(run_id=run_id):
        assert attempt.reason == Reason.TIMEOUT
        assert output(run_id, attempt=attempt.number) == b"up\n"
    assert_invariants(cluster)


def a_time_limit_counts_neither_waiting_nor_earlier_tries(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """It has waited for an hour, and its first try took another one: far more than its limit."""
    gates = [shared_folder / f"gate-{number}" for number in range(3)]
    until = "until test -e {}; do sleep 0.05; done"
    blocker = submit(account.tenant_id, until.format(gates[0]), cpu=1)
    wait_started(blocker)
    script = f"case $HOME in *-1) {until.format(gates[1])}; exit 7;; esac; {until.format(gates[2])}"
    run_id = submit(account.tenant_id, script, cpu=1, timeout_s=1800, retries=1)
    hour = timedelta(hours=1)
    Run.objects.filter(pk=run_id).update(created_at=F("created_at") - hour)
    gates[0].touch()
    wait_started(run_id)
    first = Attempt.objects.filter(run_id=run_id, number=1)
    gates[1].touch()
    wait_until(lambda: first.get().finished_at is not None, why="the first try ends")
    first.update(
        claimed_at=F("claimed_at") - hour,
        started_at=F("started_at") - hour,
        finished_at=F("finished_at") - hour,
    )
    second = Attempt.objects.filter(run_id=run_id, number=2, started_at__isnull=False)
    wait_until(second.exists, why="the second try starts", see=lambda: states(run_id))
    gates[2].touch()
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.exit_code, ended.attempt) == (State.SUCCEEDED, 0, 2)
    assert first.get().reason == Reason.EXIT_CODE
    assert_invariants(cluster)


def a_command_within_its_limit_is_left_alone(account: Account) -> None:
    (ended,) = wait_final(submit(account.tenant_id, "sleep 1; exit 3", timeout_s=60))
    assert (ended.state, ended.reason, ended.exit_code) == (State.FAILED, Reason.EXIT_CODE, 3)


def expiry_ends_waiting_and_nothing_else(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches: a limit on waiting that ends what runs, or lets what has expired start after all (I5)."""
    gate, mark = shared_folder / "gate", shared_folder / "mark"
    gate.touch()
    running = submit(account.tenant_id, f"while test -e {gate}; do sleep 0.05; done", cpu=1, expires_in_s=600)
    wait_started(running)
    waiting = submit(account.tenant_id, f"touch {mark}", cpu=1, expires_in_s=600)
    patient = submit(account.tenant_id, "true", cpu=1)
    assert reasons(account.tenant_id, waiting) == [("cpu", "it needs 1 CPU, node n1 has free 0")]
    # Both times are over at the same moment, when one runs and one waits.
    Run.objects.filter(pk__in=(running, waiting)).update(expires_at=Now())
    (expired,) = wait_final(waiting)
    assert (expired.state, expired.reason, expired.message) == (
        State.FAILED, Reason.EXPIRED, "Waited longer than its limit and was not started",
    )  # fmt: skip
    wait_final(submit(account.tenant_id, "true", cpu=1, expires_in_s=1))  # the reconciler came by once more
    assert run(running).state == State.RUNNING
    gate.unlink()
    ended = wait_final(running, patient)
    assert [item.state for item in ended] == [State.SUCCEEDED] * 2
    assert not mark.exists()
    assert not Attempt.objects.filter(run_id=waiting).exists()
    assert_invariants(cluster)


def waiting_for_a_container_runtime_harms_nobody(cluster: Cluster, account: Account) -> None:
    """Catches: container work that fails where there is no Docker Engine, or holds up commands."""
    spec = ContainerSpec(image="busybox", cpu_m=100, mem_mb=64)
    waiting = services.submit(
        services.Submission(tenant_id=account.tenant_id, family="tasks", spec=spec, name="t")
    )
    (ended,) = wait_final(submit(account.tenant_id, "true"))
    assert ended.state == State.SUCCEEDED
    assert reasons(account.tenant_id, waiting) == [("runtime", "no node offers the container runtime")]
    assert run(waiting).state == State.PENDING
    services.cancel(account.tenant_id, waiting)
    assert_invariants(cluster)


def a_stopped_node_says_so(cluster: Cluster, account: Account, node: Process) -> None:
    """Catches: an alarm about a silent machine when somebody has stopped the worker in good order."""
    node.terminate()
    run_id = submit(account.tenant_id, "true")
    ((code, message),) = reasons(account.tenant_id, run_id)
    assert code == "silent"
    assert message.startswith("the worker of node n1 was stopped ")
    cluster.node(cpus=1)
    (ended,) = wait_final(run_id)
    assert ended.state == State.SUCCEEDED
    assert_invariants(cluster)


def a_retry_by_hand_is_a_new_run_of_the_same(cluster: Cluster, account: Account) -> None:
    """Catches: an ended run that is opened again, or a second one that differs from the first."""
    first = submit(account.tenant_id, "echo $A; exit 2", env={"A": "same"}, name="mine", priority=1)
    wait_final(first)
    second = services.retry(account.tenant_id, first)
    old, new = wait_final(first, second)
    assert (old.state, old.attempt) == (State.FAILED, 1)
    assert (new.name, new.spec, new.priority, new.retry_of_id, new.exit_code) == (
        "mine",
        old.spec,
        1,
        first,
        2,
    )
    assert output(second) == b"same\n"
    assert_invariants(cluster)
