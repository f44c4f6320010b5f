"""The invariants of shared/reliability.md, asserted after every fault.

I1 everything accepted ends. I2 effects per run: one per attempt, attempts never overlap. I3 every recorded
transition is legal. I4 nothing is left: process, container, scratch folder, reservation, event that is not
delivered. I5 nothing starts after a confirmed cancel. I6 the recorded exit code and log equal the truth.

Commands that prove I2 and I6 write a line to a ledger file when they begin and when they end
(``ledger_command``); everything else is read from the database and the machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from django.db.models import Sum

from tests.support.cluster import Cluster
from tests.support.engine import output
from tests.support.engines import Engine
from tests.support.receivers import Receivers
from tests.support.waiting import wait_until
from workers.models import Attempt, Callback, Node, Run, RunEvent
from workers.vocabulary.families import ENDED
from workers.vocabulary.states import FINAL, LEGAL, State


def ledger_command(ledger: Path, name: str, body: str = "", code: int = 0) -> str:
    """A shell command that notes its beginning and end in ``ledger`` and exits with ``code``.

    One line is one write below PIPE_BUF with O_APPEND, so lines of many commands do not mix.
    """
    return (
        f"echo begin {name} $$ $(date +%s.%N) >> {ledger}; echo out-{name}; {body or ':'}; "
        f"echo end {name} $$ $(date +%s.%N) >> {ledger}; exit {code}"
    )


def open_ledger(folder: Path) -> Path:
    """A ledger file that runs of any user may append to."""
    path = folder / "ledger"
    path.touch()
    path.chmod(0o666)
    return path


def begins(ledger: Path) -> dict[str, int]:
    """How often each named command began."""
    counts: dict[str, int] = defaultdict(int)
    for line in ledger.read_text().splitlines():
        what, name, *_ = line.split()
        if what == "begin":
            counts[name] += 1
    return counts


def assert_invariants(
    cluster: Cluster,
    *,
    engines: Sequence[Engine] = (),
    receivers: Receivers | None = None,
    timeout_s: float = 90.0,
) -> None:
    """I1, I3, I4 from the database, the machine and its engines; call after the fault has been repaired.

    ``receivers``: those of the test, which answer by now; a deliverer has to be there.
    """
    wait_until(
        lambda: not Run.objects.exclude(state__in=FINAL).exists(),
        timeout_s,
        why="I1 everything ends",
        see=lambda: list(
            Run.objects.exclude(state__in=FINAL).values_list("id", "state", "reason", "message", "attempt")
        ),
    )
    for event in RunEvent.objects.all():
        pair = (State(event.from_state), State(event.to_state))
        assert pair in LEGAL, f"I3: run {event.run_id} went {event.from_state} -> {event.to_state}"
    _events_follow_each_other()
    for row in Attempt.objects.all():
        assert row.state != State.RUNNING, f"attempt {row.number} of run {row.run_id} was never closed"
    used = Node.objects.aggregate(cpu=Sum("cpu_m_used"), mem=Sum("mem_mb_used"), slots=Sum("slots_used"))
    assert not any(used.values()), f"I4: reservations are left: {used}"
    wait_until(
        lambda: not left_over(cluster, engines),
        why="I4 nothing is left",
        see=lambda: left_over(cluster, engines),
    )
    if receivers is not None:
        assert_told(receivers, timeout_s)


def assert_told(receivers: Receivers, timeout_s: float = 90.0) -> None:
    """I4 for events: nothing is owed to the receivers any more, and every end was told to them.

    Ends are told once by the record, at least once on the wire, always under one id, in order.
    """
    mine = f":{receivers.port}/"
    owed = Callback.objects.filter(url__contains=mine)
    left = owed.exclude(state="delivered")
    wait_until(
        lambda: not left.exists(),
        timeout_s,
        why="I4 every event is delivered",
        see=lambda: list(left.values_list("run_id", "event", "state", "attempts_made")[:20]),
    )
    came = [item.id for item in receivers.got]
    first = {message: place for place, message in reversed(list(enumerate(came)))}
    ended = Run.objects.filter(callback_url__contains=mine, state__in=FINAL)
    assert ended.exists(), "no run of this test tells its end to the receivers: it proves nothing"
    told: dict[int | None, list[Callback]] = defaultdict(list)
    for row in owed.order_by("sequence"):
        told[row.run_id].append(row)
    for run in ended:
        events = [row.event for row in told[run.pk]]
        assert events.count(ENDED) == 1, f"I4: run {run.pk} owed {events}"
        assert events[-1] == ENDED, f"I4: run {run.pk} owed {events}"
        places = [first.get(row.message_id, -1) for row in told[run.pk]]
        assert -1 not in places, f"I4: run {run.pk}: recorded as delivered, and never came: {events} {places}"
        assert places == sorted(places), f"I4: run {run.pk}: told in another order than {events}"


def _events_follow_each_other() -> None:
    """Each event begins where the one before ended, and the last one is the run's state."""
    last: dict[int, str] = {}
    for event in RunEvent.objects.order_by("id"):
        assert event.from_state == last.get(event.run_id, State.PENDING), (
            f"I3: gap before {event} of {event.run_id}"
        )
        last[event.run_id] = event.to_state
    for run_id, state in Run.objects.values_list("id", "state"):
        assert last.get(run_id, State.PENDING) == state, (
            f"I3: run {run_id} is {state}, its events say {last.get(run_id)}"
        )


def left_over(cluster: Cluster, engines: Sequence[Engine] = ()) -> list[str]:
    """Control and scratch folders of runs on the cluster's nodes, and containers in their engines.

    The engines are the test's own, so whatever is in one was made by a node under test.
    """
    found = [f"{item['Name']} ({item['State']['Status']})" for each in engines for item in each.containers()]
    for pattern in (
        "*/scratch/*",
        "*/launcher/runs/*",
        "*/containers/*",
        "*/mover/runs/*",
        "*/mover/scratch/*",
    ):
        found += [str(path) for path in cluster.folder.glob(pattern)]
    return found


def assert_once(ledger: Path, names: dict[str, int]) -> None:
    """I2 for commands of ``ledger_command``: name -> run id; each began once per attempt that started."""
    counts = begins(ledger)
    for name, run_id in names.items():
        started = Attempt.objects.filter(run_id=run_id, started_at__isnull=False).count()
        assert counts.get(name, 0) == started, (
            f"I2: {name} began {counts.get(name, 0)} times, {started} attempts started"
        )


def assert_truth(ledger: Path, name: str, run_id: int, code: int = 0) -> None:
    """I6: the run's record equals what the command did."""
    row = Run.objects.get(pk=run_id)
    ends = [line for line in ledger.read_text().splitlines() if line.startswith(f"end {name} ")]
    assert ends, f"I6: {name} never reached its end, the record says {row.state} {row.message}"
    assert row.exit_code == code, f"I6: {name} ended with {code}, the record says {row.exit_code}"
    assert row.state == (State.SUCCEEDED if code == 0 else State.FAILED)
    assert output(run_id).decode() == f"out-{name}\n", f"I6: log of {name}"
