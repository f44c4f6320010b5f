"""What the engine gives a runtime and takes from it for exec runs: secrets, facts under the lease, questions.

The runtime of these tests is a script: it stands where a Docker Engine would, everything else is real.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from tests.contracts.jobs.conftest import Stage
from tests.support.fixtures import Account
from tests.support.session import POSTGRES
from tests.support.waiting import limit, wait_until
from workers import secrets, services
from workers.logs.capture import Shipment
from workers.logs.redaction import Redactor
from workers.models import Attempt, NodeRequest, Run
from workers.node import process, questions
from workers.node.attempt.runner import Runner
from workers.node.attempt.watch import Watch
from workers.node.leftovers import Leftovers
from workers.node.scribe import Entry, Scribe
from workers.runs import running, transitions
from workers.runtimes.base import Answering, Facts, PrepareFailed, Presence, Result
from workers.vocabulary.leases import ClaimedRun, Lease, Outcome
from workers.vocabulary.specs import ExecSpec
from workers.vocabulary.states import Reason, State


class Silent:
    """No output."""

    def pending(self, final: bool = False) -> Shipment:
        return Shipment([], [], 0, False, False, {})

    def mark(self, shipment: Shipment) -> None:
        pass


class Scripted:
    """A runtime that finds out an exec's id when it prepares, its process when it starts."""

    kind = "exec"
    noun = "Command"

    def places(self, run: ClaimedRun) -> None:
        return None

    def __init__(self, *, fails: str = "") -> None:
        self.known: dict[str, Any] = {}
        self.end = threading.Event()
        self.may_start = threading.Event()
        self.given: ClaimedRun | None = None
        self._fails = fails

    def facts(self, run: ClaimedRun) -> Facts:
        return Facts(dict(self.known))

    def presence(self, run: ClaimedRun) -> Presence:
        return Presence.RUNNING if "pid" in self.known else Presence.ABSENT

    def prepare(self, run: ClaimedRun, cancelled: Callable[[], bool], tell: Callable[[str], None]) -> None:
        self.given = run
        if self._fails == "prepare":
            raise PrepareFailed(Reason.CREATE, f"there is no container {run.spec['container']}")
        self.known |= {"exec_id": "e1", "container_id": "c1"}

    def start(self, run: ClaimedRun, as_of: float) -> None:
        assert self.may_start.wait(limit(90))
        if self._fails == "start":
            raise PrepareFailed(Reason.CREATE, f"there is no program {' '.join(run.secrets)}".strip())
        self.known["pid"] = 4711

    def wait(self, run: ClaimedRun, timeout_s: float) -> Result | None:
        return Result(code=0, ran_s=0.1) if self.end.wait(timeout_s) else None

    def output(self, run: ClaimedRun, shipped: dict[int, int]) -> Silent:
        return Silent()

    def stop(self, run: ClaimedRun, why: str, grace_s: float) -> None:
        pass

    def cleanup(self, run_id: int, attempt: int) -> None:
        pass

    def attempts(self) -> list[tuple[int, int]]:
        return []

    def kill_orphan(self, run_id: int, attempt: int) -> None:
        pass

    def renewed(self, as_of: float, kill_after_s: float, lost_after_s: float) -> None:
        pass

    def trouble(self) -> str:
        return ""

    def lookups(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        return {"containers": lambda payload: {"containers": [{"id": "c", "name": payload["service"]}]}}


@pytest.fixture(autouse=True)
def _keys(settings: Any) -> None:
    settings.GANTRY_SECRET_KEYS = [Fernet.generate_key().decode()]


def claimed(account: Account, texts: tuple[str, ...] = (), adopted: bool = False) -> ClaimedRun:
    """An exec run in a worker's hands."""
    stage = Stage()
    ids = [secrets.store(account.tenant_id, "test", text) for text in texts]
    spec = ExecSpec(container="web", argv=["true"], secret_ids=ids)
    run_id = services.submit(
        services.Submission(account.tenant_id, "jobs", spec, "test", constraints={"node": ["n1"]})
    )
    found = stage.nodes["n1"]
    with transaction.atomic(), connection.cursor() as cursor:
        (run,) = transitions.claim(cursor, found.pk, found.name, [run_id])
        if adopted:
            (run,) = transitions.adopt(cursor, found.pk, [run_id], crashed=False)
    return run


@pytest.fixture
def scribe(transactional_db: None) -> Iterator[Scribe]:
    writer = Scribe("n1", lambda: None)
    writer.start()
    yield writer
    writer.stop(30.0)


def execute(scribe: Scribe, run: ClaimedRun, runtime: Scripted) -> threading.Thread:
    runner = Runner({"exec": runtime}, scribe, threading.Event(), Leftovers())
    thread = threading.Thread(target=runner.execute, args=[Watch(run, 0.0)], daemon=True)
    thread.start()
    return thread


def facts(run: ClaimedRun) -> dict[str, Any]:
    found: dict[str, Any] = Attempt.objects.values_list("facts", flat=True).get(run_id=run.lease.run_id)
    return found


def test_facts_are_there_when_they_are_found_out(scribe: Scribe, account: Account) -> None:
    run, runtime = claimed(account), Scripted()
    thread = execute(scribe, run, runtime)
    created = {"exec_id": "e1", "container_id": "c1"}
    wait_until(lambda: facts(run) == created, why="the exec's id is stored before it starts")
    assert Run.objects.get().started_at is None
    runtime.may_start.set()
    wait_until(lambda: facts(run) == {**created, "pid": 4711}, why="its process with the start")
    assert Run.objects.get().started_at is not None
    runtime.known["later"] = 1
    runtime.end.set()
    thread.join(limit(60))
    assert Run.objects.get().state == State.SUCCEEDED
    assert facts(run) == {**created, "pid": 4711, "later": 1}


@pytest.mark.parametrize(
    ("fails", "known"), [("prepare", {}), ("start", {"exec_id": "e1", "container_id": "c1"})]
)
def test_what_fails_leaves_what_was_known(
    scribe: Scribe, account: Account, fails: str, known: dict[str, Any]
) -> None:
    run, runtime = claimed(account), Scripted(fails=fails)
    runtime.may_start.set()
    execute(scribe, run, runtime).join(limit(60))
    row = Run.objects.get()
    assert (row.state, row.reason, facts(run)) == (State.FAILED, Reason.CREATE, known)


def test_a_start_is_dated_when_it_was_not_when_it_was_written(
    transactional_db: None, account: Account
) -> None:
    """Catches: a time limit that grows with every outage of the database, for who takes the run over."""
    run, scribe = claimed(account), Scribe("n1", lambda: None)
    # The claim, too: a start is never dated before that.
    Attempt.objects.update(claimed_at=F("claimed_at") - timedelta(hours=2))
    done = scribe.write(Entry("started", run.lease, since=time.monotonic() - 3600))
    scribe.start()
    assert done.result(limit(60))
    scribe.stop(30.0)
    (ran,) = Run.objects.values_list(Now() - F("started_at"), flat=True)
    assert ran >= timedelta(hours=1)


def test_a_start_is_not_dated_earlier_because_its_writer_waited(
    transactional_db: None, account: Account
) -> None:
    """Catches a start before its claim: a group is written in one transaction, which may wait for a lock."""
    before = time.monotonic()
    run, scribe = claimed(account), Scribe("n1", lambda: None)
    with contextlib.closing(POSTGRES.connect(str(connection.settings_dict["NAME"]))) as other:
        with other.cursor() as cursor:
            cursor.execute("SELECT 1 FROM workers_run WHERE id = %s FOR UPDATE", [run.lease.run_id])
        scribe.write(Entry("told", run.lease, message="Preparing"))
        since = time.monotonic()
        done = scribe.write(Entry("started", run.lease, since=since))
        scribe.start()
        wait_until(_somebody_waits_for_a_lock, why="its writer waits")
        waits = time.monotonic()
        # It would be dated too early by the time for which it waits: longer than the claim was before.
        wait_until(lambda: time.monotonic() - waits > 2 * (since - before), why="it waits long enough")
    assert done.result(limit(60))
    scribe.stop(5.0)
    attempt = Attempt.objects.get(run_id=run.lease.run_id)
    assert attempt.started_at is not None
    assert attempt.claimed_at <= attempt.started_at


def _somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'"""
        )
        return bool(cursor.fetchone()[0])


def test_a_brief_run_has_its_facts_too(scribe: Scribe, account: Account) -> None:
    run, runtime = claimed(account), Scripted()
    runtime.may_start.set()
    runtime.end.set()
    execute(scribe, run, runtime).join(limit(60))
    assert facts(run)["pid"] == 4711


def test_the_runtime_gets_the_secrets_in_order_and_can_mask_them(scribe: Scribe, account: Account) -> None:
    run, runtime = claimed(account, ("pass word", "b", "пароль")), Scripted()
    assert "pass word" not in str(run.spec)
    runtime.may_start.set()
    runtime.end.set()
    execute(scribe, run, runtime).join(limit(60))
    assert runtime.given is not None
    assert runtime.given.secrets == ("pass word", "b", "пароль")
    assert "pass word" not in repr(runtime.given)
    mask = Redactor(text.encode() for text in runtime.given.secrets)
    assert mask.replace("b: pass word, пароль".encode(), last=True)[0] == b"b: ***, ***"


def test_no_message_of_a_runtime_tells_a_secret(scribe: Scribe, account: Account) -> None:
    run, runtime = claimed(account, ("pass word", "bc")), Scripted(fails="start")
    runtime.may_start.set()
    execute(scribe, run, runtime).join(limit(60))
    assert Run.objects.get().message == Attempt.objects.get().message == "there is no program *** bc"


def test_without_its_secrets_nothing_is_started(scribe: Scribe, account: Account) -> None:
    run, runtime = claimed(account, ("text",)), Scripted()
    secrets.wipe(run.spec["secret_ids"])
    execute(scribe, run, runtime).join(limit(60))
    row = Run.objects.get()
    assert (row.state, row.reason, runtime.given) == (State.FAILED, Reason.CREATE, None)
    assert "does not exist" in row.message


def test_what_runs_is_left_alone_while_its_secrets_cannot_be_read(scribe: Scribe, account: Account) -> None:
    """Its output could not be cleaned: the run stays as it is until a key fits again."""
    run, runtime = claimed(account, ("text",), adopted=True), Scripted()
    secrets.wipe(run.spec["secret_ids"])
    runner = Runner({"exec": runtime}, scribe, threading.Event(), Leftovers())
    with pytest.raises(Exception, match="does not exist"):
        runner.execute(Watch(run, 0.0))
    assert (Run.objects.get().state, runtime.given) == (State.RUNNING, None)


def test_facts_are_written_under_the_lease_only(db: None, account: Account) -> None:
    run = claimed(account)
    stale = Lease(run.lease.run_id, run.lease.attempt, run.lease.epoch + 1)
    with transaction.atomic(), connection.cursor() as cursor:
        assert running.tell(cursor, [(stale, {"pid": 1})]) == set()
        assert running.tell(cursor, [(run.lease, {"pid": 2}), (stale, {"pid": 3})]) == {run.lease.run_id}
    assert facts(run) == {"pid": 2}
    with transaction.atomic(), connection.cursor() as cursor:
        ended = Outcome(run.lease, State.FAILED, Reason.LOST, "gone", facts={"seen": True})
        assert transitions.finish(cursor, [ended], by="test")
        assert running.tell(cursor, [(run.lease, {"pid": 4})]) == set()
    assert facts(run) == {"pid": 2, "seen": True}


def test_questions_go_to_the_runtime_that_answers_them(db: None, account: Account) -> None:
    runtime = Scripted()
    assert isinstance(runtime, Answering)
    target = Stage().nodes["n1"]
    asked = [
        NodeRequest.objects.create(node=target, kind=kind, payload={"service": "web", "runs": [7]})
        for kind in ("containers", "reconcile", "weather")
    ]
    questions.answer([item.pk for item in asked], lambda run_id: (True, f"run {run_id}"), runtime.lookups())
    for item in asked:
        item.refresh_from_db()
        assert item.answered_at is not None
    assert asked[0].answer == {"containers": [{"id": "c", "name": "web"}]}
    assert asked[1].answer == {"7": [True, "run 7"]}
    assert "weather" in str(asked[2].answer)


def test_a_node_has_its_name_as_an_attribute_that_nobody_can_take(settings: Any) -> None:
    settings.GANTRY_NODE_ATTRIBUTES = ["rack_id=r1", "node=other"]
    assert process.attributes()["node"] == django_settings.GANTRY_NODE_NAME
    assert process.attributes()["rack_id"] == "r1"


def test_cancel_all_is_the_tenants_own(db: None, account: Account, stranger: Account) -> None:
    spec = ExecSpec(container="web", argv=["true"])
    mine, other = (
        services.submit(services.Submission(who.tenant_id, "jobs", spec, "test"))
        for who in (account, stranger)
    )
    assert services.cancel_all(account.tenant_id, [mine, other]) == 1
    assert services.cancel_all(account.tenant_id, [mine]) == 0
    assert dict(Run.objects.values_list("pk", "state")) == {mine: State.CANCELLED, other: State.PENDING}


def test_an_exec_takes_a_slot_and_nothing_else(db: None, account: Account) -> None:
    run = claimed(account)
    row = Run.objects.select_related("node", "shape").get(pk=run.lease.run_id)
    assert row.node is not None
    assert (row.node.cpu_m_used, row.node.mem_mb_used, row.node.slots_used) == (0, 0, 1)
    assert ExecSpec.from_json(row.spec) == ExecSpec(container="web", argv=["true"])
