"""A command from submission to its end on one real node."""

from __future__ import annotations

from pathlib import Path

from django.db.models.functions import Now

from tests.support.cluster import Cluster
from tests.support.engine import output, run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt, Run, RunEvent
from workers.vocabulary.states import Reason, State


def test_success_failure_and_output(cluster: Cluster, account: Account) -> None:
    cluster.node()
    good = submit(account.tenant_id, "echo hello; echo bad >&2")
    bad = submit(account.tenant_id, "exit 3")
    missing = submit(account.tenant_id, "no-such-command")
    ended, failed, absent = wait_final(good, bad, missing)
    assert (ended.state, ended.exit_code, ended.message) == (
        State.SUCCEEDED,
        0,
        "Command exited with status 0",
    )
    assert output(good) == b"hello\n"
    assert output(good, stream=2) == b"bad\n"
    assert (failed.state, failed.reason, failed.exit_code) == (State.FAILED, Reason.EXIT_CODE, 3)
    assert failed.message == "Command exited with status 3"
    assert absent.exit_code == 127
    attempt = Attempt.objects.get(run_id=good)
    assert attempt.log_bytes == len(b"hello\nbad\n")
    assert not attempt.log_truncated
    events = RunEvent.objects.filter(run_id=good).order_by("id").values_list("from_state", "to_state")
    assert list(events) == [("PENDING", "RUNNING"), ("RUNNING", "SUCCEEDED")]
    assert_invariants(cluster)


def test_cancel_of_a_running_command(cluster: Cluster, account: Account) -> None:
    cluster.node()
    run_id = submit(account.tenant_id, "echo up; sleep 600")
    wait_until(lambda: output(run_id) == b"up\n", why="it is up")
    done = services.cancel(account.tenant_id, run_id)
    assert done.accepted
    assert done.state in (State.RUNNING, State.CANCELLED), "or it has ended by it when the answer is given"
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.message) == (State.CANCELLED, "Command was killed by request")
    assert output(run_id) == b"up\n"
    assert_invariants(cluster)


def test_cancel_of_a_waiting_command_without_any_node(account: Account) -> None:
    run_id = submit(account.tenant_id, "true")
    done = services.cancel(account.tenant_id, run_id)
    assert (done.accepted, done.state) == (True, State.CANCELLED)
    again = services.cancel(account.tenant_id, run_id)
    assert (again.accepted, again.already_final) == (False, True)


def test_retry_until_success_and_until_the_tries_are_used_up(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    cluster.node()
    mark = shared_folder
    twice = f"test -e {mark}/x && exit 0; touch {mark}/x; echo first; exit 7"
    mended = submit(account.tenant_id, twice, retries=3)
    hopeless = submit(account.tenant_id, "exit 9", retries=2)
    good, bad = wait_final(mended, hopeless)
    assert (good.state, good.attempt, good.retries_left) == (State.SUCCEEDED, 2, 2)
    assert output(mended, attempt=1) == b"first\n"
    assert (bad.state, bad.attempt, bad.retries_left, bad.exit_code) == (State.FAILED, 3, 0, 9)
    codes = Attempt.objects.filter(run_id=hopeless).order_by("number").values_list("exit_code", flat=True)
    assert list(codes) == [9, 9, 9]
    assert_invariants(cluster)


def test_time_limit(cluster: Cluster, account: Account) -> None:
    cluster.node()
    run_id = submit(account.tenant_id, "trap '' TERM; while :; do sleep 1; done", timeout_s=1, grace_s=1)
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.TIMEOUT)
    assert "longer than its limit of 1 s" in ended.message
    assert_invariants(cluster)


def test_expiry_of_what_nobody_takes(cluster: Cluster, account: Account) -> None:
    cluster.node()
    run_id = submit(account.tenant_id, "true", constraints={"rack_id": ["r9"]}, expires_in_s=600)
    told = services.explain(account.tenant_id, run_id)
    assert told["reasons"][0]["message"] == "no node has rack_id in [r9]"  # type: ignore[index]
    Run.objects.filter(pk=run_id).update(expires_at=Now())
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.EXPIRED)


def test_a_worker_stopped_in_good_order_harms_nothing(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    first, gate = cluster.node(), shared_folder / "gate"
    gate.touch()
    run_id = submit(
        account.tenant_id, f"echo before; while test -e {gate}; do sleep 0.1; done; echo after; exit 4"
    )
    wait_started(run_id)
    assert first.terminate() == 0
    assert run(run_id).state == State.RUNNING
    cluster.node()
    gate.unlink()
    (ended,) = wait_final(run_id)
    assert (ended.exit_code, ended.attempt, ended.lease_epoch) == (4, 1, 2)
    assert output(run_id) == b"before\nafter\n"
    assert Run.objects.get(pk=run_id).crashes == 0
    assert_invariants(cluster)


def test_an_operator_says_how_many_processes_a_command_may_have(cluster: Cluster, account: Account) -> None:
    """Catches: a setting that nobody listens to."""
    cluster.env["GANTRY_COMMAND_PROCESSES"] = "200"
    cluster.node()
    many = "i=0; while test $i -lt 2000; do sleep 600 & i=$((i+1)); done; echo all"
    run_id = submit(account.tenant_id, many, mem_mb=64)
    (ended,) = wait_final(run_id)
    assert (ended.state, output(run_id)) == (State.FAILED, b"")
    assert b"fork" in output(run_id, stream=2)
    few = submit(account.tenant_id, "sleep 0 & sleep 0 & wait; echo few")
    wait_final(few)
    assert output(few) == b"few\n"
    assert_invariants(cluster)
