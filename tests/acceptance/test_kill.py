"""Killing a command means killing everything that it started, however well hidden, within its grace period.

Whether something survives is read from /proc of the machine itself: every process of these commands carries a
number that nothing else has.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, spare_neighbours
from tests.support.engine import output, run, states, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants
from tests.support.waiting import wait_until
from workers import services
from workers.launcher import control
from workers.models import Attempt, Run
from workers.vocabulary.states import FINAL, Reason, State


def new_marker() -> str:
    """A time to sleep that nobody else on the machine sleeps: `sleep <marker>` is recognised by it."""
    return f"{random.SystemRandom().randrange(10**8, 10**9)}"


def alive(marker: str) -> list[str]:
    """Command lines of the living processes that carry the marker."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            status = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if marker in command and status not in "ZX":
            found.append(command.strip())
    return found


#: Ways of getting away from one's parent. Each is a shell line that leaves `sleep <marker>` behind.
ESCAPES = {
    "background": "sleep {m} &",
    "own session": "setsid sleep {m} &",
    "double fork": "( ( sleep {m} & ) & )",
    "double fork in own sessions": "( setsid sh -c 'setsid sleep {m} & sleep {m}' & )",
    "nohup": "nohup sleep {m} >/dev/null 2>&1 &",
    "clean environment": "env -i /bin/sh -c 'trap \"\" TERM HUP INT; while :; do sleep {m}; done' &",
    "closed output": "setsid sleep {m} </dev/null >/dev/null 2>&1 &",
    "stopped": "sh -c 'kill -STOP $$; sleep {m}' {m} &",
    "ignores everything": "sh -c 'trap \"\" TERM HUP INT QUIT USR1 PIPE ALRM; sleep {m} & wait; sleep {m}' &",
    "another folder": "( cd / && setsid sleep {m} & )",
    "starts a new one when one dies": "( while :; do sleep {m}; done ) &",
}


def escaping(marker: str, *names: str) -> str:
    """A shell that ignores TERM, has let all of these go, and never ends by itself."""
    lines = "\n".join(ESCAPES[name].format(m=marker) for name in names or ESCAPES)
    return f"trap '' TERM HUP INT\n{lines}\necho up\nwhile :; do sleep {marker}; done"


def stops(
    cluster: Cluster, run_id: int, meanwhile: Callable[[], object] = bool
) -> set[tuple[str, float, float]]:
    """Wait for the end of a run: every request to stop it that its shim was given.

    That is (why, when, when to KILL), read from the run's control folder for as long as that is there: the
    grace period at least.
    """
    folder = control.run_dir(str(cluster.folder / "n1" / "launcher"), f"{run_id}-1")
    seen: set[tuple[str, float, float]] = set()

    def ended() -> bool:
        if found := control.stop_request(control.read_stop(folder)):
            seen.add(found)
        meanwhile()
        return run(run_id).state in FINAL

    wait_until(ended, 90, 0.02, f"run {run_id} ends", lambda: states(run_id))
    return seen


@pytest.mark.account
def test_nothing_survives_and_the_neighbour_lives(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """On one node; each step says what it catches."""
    cluster.node()
    nothing_survives_the_grace_period(cluster, account)
    each_way_out_is_closed_when_the_command_just_ends(cluster, account)
    grandchildren_are_asked_too(cluster, account)
    the_neighbour_lives(cluster, account, shared_folder)


def test_how_a_kill_goes(cluster: Cluster, account: Account) -> None:
    """On one node; each step says what it catches."""
    cluster.node()
    a_command_that_takes_leave_politely_is_let(cluster, account)
    a_second_kill_does_not_lengthen_or_shorten_the_grace_period(cluster, account)
    for who in STOPS:
        others_kill_as_thoroughly(cluster, account, who)
    a_kill_that_finds_the_command_ended_changes_nothing(account)


def nothing_survives_the_grace_period(cluster: Cluster, account: Account) -> None:
    """The issue's fourth proof: a shell that ignores TERM, with grandchildren in sessions of their own."""
    marker = new_marker()
    run_id = submit(account.tenant_id, escaping(marker), grace_s=4)
    wait_until(lambda: output(run_id) == b"up\n", why="all have been started")
    wait_until(lambda: len(alive(marker)) > len(ESCAPES), why="all of them live")
    asked = control.boottime()
    answer = services.cancel(account.tenant_id, run_id)
    assert answer.accepted
    assert answer.state in (State.RUNNING, State.CANCELLED), "or it has ended by it when the answer is given"
    ((why, at, deadline),) = stops(cluster, run_id)
    assert alive(marker) == [], "the run is recorded as ended, and something of it lives"
    ended = run(run_id)
    assert (ended.state, ended.reason, ended.message) == (
        State.CANCELLED,
        "",
        "Command was killed by request",
    )
    assert why == "cancel"
    assert asked <= at <= control.boottime()
    assert deadline - at == pytest.approx(4), "it was not given its grace period"
    assert control.boottime() >= deadline, "it was not given all of it"
    assert_invariants(cluster)


def each_way_out_is_closed_when_the_command_just_ends(cluster: Cluster, account: Account) -> None:
    """Catches: a daemon that a command leaves behind when it ends: the run's end is the end of all."""
    marker = new_marker()
    markers = {name: str(int(marker) + number) for number, name in enumerate(ESCAPES)}
    run_ids = {
        name: submit(
            account.tenant_id, f"{ESCAPES[name].format(m=markers[name])}\nsleep 0.3\necho up\nexit 6"
        )
        for name in ESCAPES
    }
    for name, run_id in run_ids.items():
        (ended,) = wait_final(run_id)
        assert alive(markers[name]) == [], name
        assert (ended.state, ended.exit_code, output(run_id)) == (State.FAILED, 6, b"up\n"), name
    assert_invariants(cluster)


def a_command_that_takes_leave_politely_is_let(cluster: Cluster, account: Account) -> None:
    """Catches: KILL before the grace period is over; the last words of a command that are lost."""
    run_id = submit(
        account.tenant_id,
        "trap 'echo cleaning; sleep 1; echo cleaned; exit 9' TERM; echo up; while :; do sleep 0.1; done",
        grace_s=3600,
    )
    wait_until(lambda: output(run_id) == b"up\n", why="it is up")
    services.cancel(account.tenant_id, run_id)
    (ended,) = wait_final(run_id)
    assert output(run_id) == b"up\ncleaning\ncleaned\n"
    assert (ended.state, ended.exit_code) == (State.CANCELLED, 9)
    assert_invariants(cluster)


def grandchildren_are_asked_too(cluster: Cluster, account: Account) -> None:
    """Catches: TERM for the main process only. A child in its own session says goodbye, its parent waits."""
    child = 'trap "echo child cleaned; exit" TERM; echo child up; while :; do sleep 0.1; done'
    run_id = submit(
        account.tenant_id,
        f"trap 'wait; echo parent cleaned; exit 0' TERM; setsid sh -c '{child}' & wait",
        grace_s=3600,
    )
    wait_until(lambda: output(run_id) == b"child up\n", why="the child is up")
    services.cancel(account.tenant_id, run_id)
    (ended,) = wait_final(run_id)
    assert output(run_id) == b"child up\nchild cleaned\nparent cleaned\n"
    assert ended.state == State.CANCELLED
    assert_invariants(cluster)


def a_second_kill_does_not_lengthen_or_shorten_the_grace_period(cluster: Cluster, account: Account) -> None:
    """Catches: an impatient client whose repeated kills put the end off for ever."""
    marker = new_marker()
    run_id = submit(account.tenant_id, f"trap '' TERM; echo up; while :; do sleep {marker}; done", grace_s=3)
    wait_until(lambda: output(run_id) == b"up\n", why="it is up")
    requests = stops(cluster, run_id, lambda: services.cancel(account.tenant_id, run_id))
    assert len(requests) == 1, f"another end of the grace period: {requests}"
    assert Run.objects.filter(pk=run_id, state=State.CANCELLED).exists()
    assert alive(marker) == []
    assert_invariants(cluster)


@pytest.mark.account
def test_fork_bombs_end(cluster: Cluster, account: Account) -> None:
    spare_neighbours(cluster)
    cluster.node()
    a_fork_bomb_ends(cluster, account, grace_s=0)
    a_fork_bomb_ends(cluster, account, grace_s=1)


def a_fork_bomb_ends(cluster: Cluster, account: Account, grace_s: int) -> None:
    """Catches: a killer that is slower than what it has to kill."""
    marker = new_marker()
    bomb = f"b() {{ sleep {marker} & sleep 0.02; b & sleep {marker}; }}"
    run_id = submit(
        account.tenant_id, f"trap '' TERM; {bomb}; b & b & b & wait; sleep {marker}", grace_s=grace_s
    )
    wait_until(lambda: len(alive(marker)) > 30, why="it has grown")
    services.cancel(account.tenant_id, run_id)
    (ended,) = wait_final(run_id)
    assert ended.state == State.CANCELLED
    assert alive(marker) == []
    assert_invariants(cluster)


def the_neighbour_lives(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches: a kill that reaches another run of the same node."""
    marker = new_marker()
    victim = submit(account.tenant_id, escaping(marker, "own session", "stopped"), grace_s=0)
    gate = shared_folder / "gate"
    other = submit(
        account.tenant_id, f"setsid sh -c 'until test -e {gate}; do sleep 0.1; done' & wait; echo lived"
    )
    wait_until(lambda: output(victim) == b"up\n", why="it is up")
    wait_started(other)
    services.cancel(account.tenant_id, victim)
    wait_final(victim)
    gate.touch()
    (ended,) = wait_final(other)
    assert (ended.state, output(other)) == (State.SUCCEEDED, b"lived\n")
    assert alive(marker) == []
    assert_invariants(cluster)


#: How a run is brought to be stopped by somebody else than its client, and what the record then says.
STOPS: dict[str, tuple[Callable[[int, int], object], dict[str, object]]] = {
    "an operator": (
        lambda tenant_id, run_id: services.cancel(None, run_id, operator=True),
        {"state": State.CANCELLED, "reason": Reason.OPERATOR, "message": "Command was killed by an operator"},
    ),
    "its time limit": (
        lambda tenant_id, run_id: None,
        {
            "state": State.FAILED,
            "reason": Reason.TIMEOUT,
            "message": "Command ran longer than its limit of 15 s and was killed",
        },
    ),
}


def others_kill_as_thoroughly(cluster: Cluster, account: Account, who: str) -> None:
    """Catches: a time limit or an operator's kill that is less thorough than a client's."""
    marker, timeout_s = new_marker(), 15 if who == "its time limit" else None
    run_id = submit(account.tenant_id, escaping(marker), grace_s=1, timeout_s=timeout_s)
    wait_until(lambda: output(run_id) == b"up\n", why="it is up")
    stop, expected = STOPS[who]
    stop(account.tenant_id, run_id)
    (ended,) = wait_final(run_id)
    assert alive(marker) == []
    assert {name: getattr(ended, name) for name in expected} == expected
    assert_invariants(cluster)


def a_kill_that_finds_the_command_ended_changes_nothing(account: Account) -> None:
    """Catches: a success that becomes a cancel afterwards."""
    run_id = submit(account.tenant_id, "exit 0")
    wait_final(run_id)
    answer = services.cancel(account.tenant_id, run_id)
    assert (answer.accepted, answer.already_final, answer.message) == (False, True, "It has already ended")
    assert run(run_id).state == State.SUCCEEDED
    assert Attempt.objects.get(run_id=run_id).exit_code == 0


def test_a_kill_before_the_start_and_none_starts(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches: a command that runs although its kill was confirmed while it waited (I5)."""
    marks = [shared_folder / f"mark-{number}" for number in range(20)]
    run_ids = [submit(account.tenant_id, f"touch {mark}") for mark in marks]
    for run_id in run_ids[::2]:
        assert services.cancel(account.tenant_id, run_id).state == State.CANCELLED
    cluster.node()
    wait_final(*run_ids)
    assert [mark.exists() for mark in marks] == [False, True] * 10
    assert_invariants(cluster)
