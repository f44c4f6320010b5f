"""One suite over all runtimes: the rules of ``workers.runtimes.base``, the same cases for each."""

from __future__ import annotations

import threading

import pytest

from tests.conformance.driving import (
    PATIENCE,
    Collected,
    adopted,
    code,
    ended,
    finished,
    gone,
    refused,
    start,
)
from tests.conformance.subjects import Containers, Subject, subject
from tests.support.waiting import wait_until
from tests.unit.launcher.launching import mark, napping, sleepers
from workers.launcher import control
from workers.logs.capture import STDERR, STDOUT
from workers.runtimes.base import PrepareFailed, Presence

__all__ = ["subject"]  # the fixture


#: Ends when the test says so: ``subject.put(run, "go")``.
_UNTIL = "until test -e go; do sleep 0.1; done"


# --- ends ---------------------------------------------------------------------------------------------------


def test_success_and_every_presence_on_the_way(subject: Subject) -> None:
    """Catches a presence that is guessed, and a cleanup that leaves something."""
    runtime, run = subject.runtime(), subject.run(f"echo begun; sleep 1; {_UNTIL}; echo over")
    assert gone(runtime, run)
    runtime.prepare(run, lambda: False, lambda said: None)
    assert runtime.presence(run) in (Presence.PREPARED, Presence.ABSENT), "nothing was executed"
    before = control.boottime()
    start(runtime, run)
    assert runtime.presence(run) is Presence.RUNNING
    assert runtime.wait(run, 0.0) is None
    subject.put(run, "go")
    result = ended(runtime, run)
    assert (result.code, result.signal, result.killed, result.error, result.oom, result.lost) == (
        *(0, None, None, None),
        *(False, False),
    )
    assert 0.9 < result.ran_s < control.boottime() - before
    assert runtime.presence(run) is Presence.EXITED
    assert ended(runtime, run) == result, "asked again it says something else"
    collected = Collected(runtime, run)
    collected.rest()
    assert collected.text() == {STDOUT: b"begun\nover\n", STDERR: b""}
    runtime.cleanup(run.lease.run_id, run.lease.attempt)
    assert gone(runtime, run)
    assert subject.left() == []
    runtime.cleanup(run.lease.run_id, run.lease.attempt)
    assert runtime.trouble() == ""


@pytest.mark.parametrize("number", [1, 3, 126, 127, 137, 255])
def test_the_exit_code_is_the_commands_own(subject: Subject, number: int) -> None:
    """Catches a 137 that is taken for a kill or for want of memory."""
    result, _ = finished(subject.runtime(), subject.run(f"exit {number}"))
    assert (code(result), result.killed, result.error, result.oom, result.lost) == (
        *(number, None, None),
        *(False, False),
    )


@pytest.mark.parametrize("number", [9, 15])
def test_a_signal_ends_it(subject: Subject, number: int) -> None:
    result, told = finished(
        subject.runtime(), subject.run(f"echo before; kill -{number} $$; sleep 300; echo after")
    )
    assert (code(result), result.killed, result.oom, result.lost) == (128 + number, None, False, False)
    assert told[STDOUT] == b"before\n"


@pytest.mark.parametrize("argv", [["/no/such/program"], ["no-such-program", "-x"], ["/etc/passwd"]])
def test_a_command_that_is_not_there_is_the_runs_fault(subject: Subject, argv: list[str]) -> None:
    """Catches a run that is offered again and again, or reported as if it had run."""
    runtime, run = subject.runtime(), subject.run(argv=argv)
    assert argv[0] in refused(runtime, run)
    assert runtime.presence(run) is not Presence.RUNNING
    runtime.cleanup(run.lease.run_id, run.lease.attempt)
    assert subject.left() == []


def test_an_input_that_cannot_be_had(subject: Subject) -> None:
    runtime, (run, reason) = subject.runtime(), subject.without_input()
    with pytest.raises(PrepareFailed) as failure:
        start(runtime, run)
    assert (failure.value.reason, failure.value.ours) == (reason, False)
    runtime.cleanup(run.lease.run_id, run.lease.attempt)
    assert subject.left() == []


@pytest.mark.parametrize("where", ["main", "child"])
def test_out_of_memory(subject: Subject, where: str) -> None:
    """Catches an end for want of memory that looks like success, or like any other end."""
    eat = "tail /dev/zero > /dev/null"
    script = f"exec {eat}" if where == "main" else f"{eat}; sleep 0.2; exit 9"
    runtime = subject.runtime()
    result, _ = finished(runtime, subject.run(script, mem_mb=48))
    assert code(result) != 0
    assert (result.killed, result.lost) == (None, False)
    assert subject.tells_oom(runtime) in (None, result.oom)


# --- stopping -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["cancel", "timeout"])
def test_stop_ends_all_that_it_started(subject: Subject, why: str) -> None:
    """Catches descendants that ignore TERM, in sessions of their own, and outlive the grace period."""
    runtime, number = subject.runtime(), mark()
    hide = f"trap '' TERM; sleep {number}"
    script = f'trap \'\' TERM; setsid sh -c "{hide}" & (sh -c "{hide}" & sh -c "{hide}"); wait'
    run = subject.run(script)
    start(runtime, run)
    wait_until(lambda: len(sleepers(number)) >= 3, PATIENCE, why="all of it is up")
    runtime.stop(run, why, 0.5)
    runtime.stop(run, why, 0.5)
    result = ended(runtime, run)
    assert (result.killed, result.lost) == (why, False)
    assert sleepers(number) == []
    assert runtime.presence(run) is Presence.EXITED


def test_term_comes_first(subject: Subject) -> None:
    """Catches a stop that grants no grace, or whose reason is forgotten since it ended by itself."""
    runtime = subject.runtime()
    script = "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.1; done"
    run = subject.run(script)
    start(runtime, run)
    collected = Collected(runtime, run)
    collected.until(b"ready\n")
    runtime.stop(run, "cancel", 90)
    result = ended(runtime, run)
    assert (result.killed, result.code) == ("cancel", 4)
    collected.rest()
    # A shell may complain about its child that was ended beside it, and here that is the same stream.
    said = collected.text()[STDOUT]
    assert (said.replace(b"Terminated\n", b"") if subject.one_stream else said) == b"ready\nbye\n"


def test_the_first_reason_stays(subject: Subject) -> None:
    """Catches a timeout that is called a cancel because somebody cancelled during the grace period."""
    runtime, run = subject.runtime(), subject.run("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    start(runtime, run)
    Collected(runtime, run).until(b"ready\n")
    runtime.stop(run, "timeout", 1.0)
    runtime.stop(run, "cancel", 1.0)
    assert ended(runtime, run).killed == "timeout"


def test_a_stop_that_comes_too_late_changes_nothing(subject: Subject) -> None:
    runtime, run = subject.runtime(), subject.run("exit 6")
    start(runtime, run)
    before = ended(runtime, run)
    runtime.stop(run, "cancel", 0.5)
    assert ended(runtime, run) == before
    assert (before.code, before.killed) == (6, None)


# --- output -------------------------------------------------------------------------------------------------


def test_output_is_kept_byte_by_byte_and_stream_by_stream(subject: Subject) -> None:
    """Catches text where there are bytes, streams that are mixed, a last line without its end."""
    octets = "".join(f"\\{number:03o}" for number in range(256))
    script = f"printf '{octets}'; printf 'wrong' >&2; printf '\\r\\n\\0last'; printf ' turn' >&2"
    result, told = finished(subject.runtime(), subject.run(script))
    assert result.code == 0
    if subject.one_stream:
        assert told == {STDOUT: bytes(range(256)) + b"wrong\r\n\0last turn", STDERR: b""}
    else:
        assert told == {STDOUT: bytes(range(256)) + b"\r\n\0last", STDERR: b"wrong turn"}


def test_a_long_line_is_one_line(subject: Subject) -> None:
    """Catches an engine's own idea of a line: 16 KiB."""
    script = "head -c 100000 /dev/zero | tr '\\0' x; printf 'y\\nz'"
    _, told = finished(subject.runtime(), subject.run(script))
    assert told[STDOUT] == b"x" * 100_000 + b"y\nz"


def test_output_beyond_the_cap_keeps_head_and_tail(subject: Subject) -> None:
    """Catches memory that grows with output, a command that is killed for it, an end that is lost."""
    line = 1000
    many = 75_000
    script = (
        f'awk \'BEGIN {{ pad = sprintf("%{line - 10}s", ""); '
        f'for (i = 0; i < {many}; i++) printf "%09d%s\\n", i, pad }}\'; echo over >&2'
    )
    runtime, run = subject.runtime(), subject.run(script)
    start(runtime, run)
    collected = Collected(runtime, run)

    def over() -> bool:
        collected.some()
        return runtime.wait(run, 0.1) is not None

    wait_until(over, 2 * PATIENCE, 0.0, "it ends", lambda: collected.log_bytes)
    assert ended(runtime, run).code == 0
    collected.rest()
    told = collected.text()
    assert (told[STDOUT] if subject.one_stream else told[STDERR]).endswith(b"over\n")
    assert collected.truncated
    numbers = [
        int(text[:9]) for text in told[STDOUT].splitlines() if len(text) == line - 1 and text[:9].isdigit()
    ]
    head = run.spec["log_head"] // line
    assert numbers[: head - 300] == list(range(head - 300)), "the head is kept"
    tail = 8_000
    assert numbers[-tail:] == list(range(many - tail, many)), "the tail is kept"
    assert len(told[STDOUT]) <= run.spec["log_head"] + run.spec["log_tail"] + 2**20


def test_output_is_there_while_it_runs(subject: Subject) -> None:
    runtime, run = subject.runtime(), subject.run("echo one; echo two >&2; sleep 300")
    start(runtime, run)
    collected = Collected(runtime, run)
    collected.until(b"one\n")
    collected.until(b"two\n", STDOUT if subject.one_stream else STDERR)
    assert runtime.wait(run, 0.0) is None
    runtime.stop(run, "cancel", 0.1)
    ended(runtime, run)


# --- once ---------------------------------------------------------------------------------------------------


def test_started_twice_runs_once(subject: Subject) -> None:
    """Catches a second execution: by the same worker, by another, after the end."""
    one, other, run = subject.runtime(), subject.runtime(), subject.run("echo ran >> count; sleep 1")
    one.prepare(run, lambda: False, lambda said: None)
    other.prepare(run, lambda: False, lambda said: None)
    threads = [threading.Thread(target=start, args=(each, run)) for each in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended(other, run).code == 0
    start(one, run)
    assert ended(one, run).code == 0
    assert subject.written(run, "count") == "ran\n"
    if isinstance(subject, Containers):
        assert len(subject.containers(run)) == 1


def test_the_next_worker_adopts_what_runs(subject: Subject) -> None:
    """Catches a run that is begun anew, killed or lost when its worker is killed; output lost or doubled."""
    number = mark()
    run = subject.run(f"echo one; sleep {number} & {_UNTIL}; echo two; kill %1 2>/dev/null; exit 5")
    subject.start_and_die(run)
    runtime, again = subject.runtime(), adopted(run)
    before = wait_until(lambda: napping(number), PATIENCE, why="it is up")
    assert runtime.presence(again) is Presence.RUNNING
    assert (run.lease.run_id, 1) in runtime.attempts()
    first = Collected(runtime, again)
    first.until(b"one\n")
    third = subject.runtime()
    start(third, again)  # adopts
    assert napping(number) == before
    rest = Collected(third, again, first.shipped())
    subject.put(again, "go")
    assert ended(third, again).code == 5
    rest.rest()
    assert first.text()[STDOUT] + rest.text()[STDOUT] == b"one\ntwo\n"


def test_the_next_worker_finds_what_ended_meanwhile(subject: Subject) -> None:
    run = subject.run("echo said; exit 7")
    subject.start_and_die(run)
    runtime, again = subject.runtime(), adopted(run)
    wait_until(lambda: runtime.presence(again) is Presence.EXITED, PATIENCE, why="it ends")
    result = ended(runtime, again)
    assert (result.code, result.killed, result.lost) == (7, None, False)
    collected = Collected(runtime, again)
    collected.rest()
    assert collected.text()[STDOUT] == b"said\n"


def test_the_reason_of_a_stop_outlives_the_worker(subject: Subject) -> None:
    """Catches a cancelled run that the next worker records as failed."""
    runtime, run = subject.runtime(), subject.run("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    start(runtime, run)
    Collected(runtime, run).until(b"ready\n")
    runtime.stop(run, "cancel", 0.2)
    assert ended(subject.runtime(), adopted(run)).killed == "cancel"


def test_work_that_is_gone_without_a_result_is_lost(subject: Subject) -> None:
    """Catches success (or waiting for ever) where nobody can know the exit code."""
    number = mark()
    runtime, run = subject.runtime(), subject.run(f"exec sleep {number}")
    start(runtime, run)
    wait_until(lambda: sleepers(number), PATIENCE, why="it is up")
    assert runtime.wait(run, 0.0) is None
    subject.forget(run)
    result = ended(runtime, run)
    assert (result.lost, result.code) == subject.forgotten
    wait_until(lambda: not sleepers(number), PATIENCE, why="nothing of it goes on")
    if result.lost:
        assert subject.runtime().presence(adopted(run)) in (Presence.LOST, Presence.ABSENT)
    runtime.cleanup(run.lease.run_id, run.lease.attempt)
    assert subject.left() == []


# --- orphans ------------------------------------------------------------------------------------------------


def test_orphans_are_found_and_ended(subject: Subject) -> None:
    number = mark()
    run, other = subject.run(f"trap '' TERM; sleep {number}; sleep {number}"), subject.run("sleep 300")
    subject.start_and_die(run)
    runtime = subject.runtime()
    start(runtime, other)
    assert sorted(runtime.attempts()) == sorted((each.lease.run_id, 1) for each in (run, other))
    runtime.kill_orphan(run.lease.run_id, 1)
    assert sleepers(number) == []
    runtime.cleanup(run.lease.run_id, 1)
    assert runtime.attempts() == [(other.lease.run_id, 1)]
    assert runtime.presence(other) is Presence.RUNNING


def test_what_was_only_prepared_is_found_too(subject: Subject) -> None:
    runtime, run = subject.runtime(), subject.run("true")
    runtime.prepare(run, lambda: False, lambda said: None)
    for run_id, attempt in runtime.attempts():
        runtime.kill_orphan(run_id, attempt)
        runtime.cleanup(run_id, attempt)
    assert subject.left() == []


def test_the_guard_ends_what_nobody_renews(subject: Subject) -> None:
    """Catches work that goes on although its node counts as lost; and a reason that is not told."""
    number = mark()
    runtime, run = subject.runtime(), subject.run(f"trap '' TERM; sleep {number}; sleep {number}")
    start(runtime, run)
    wait_until(lambda: sleepers(number), PATIENCE, why="it is up")
    runtime.renewed(control.boottime(), 1.0, 6.0)
    assert ended(runtime, run).killed == "guard"
    assert sleepers(number) == []
