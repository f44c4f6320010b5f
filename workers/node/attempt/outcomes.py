"""A runtime's result as an outcome: state, reason and a message for a person. Pure.

The user's own failure is told apart from ours, and "killed by us" from "ended by itself": exit code 137 alone
says nothing. Must not import the database or runtimes' SDKs.
"""

from __future__ import annotations

import signal
from dataclasses import replace

from django.conf import settings

from workers.logs.capture import Shipment
from workers.logs.redaction import Redactor
from workers.runtimes.base import Facts, PrepareFailed, Result
from workers.vocabulary.leases import ClaimedRun, Outcome
from workers.vocabulary.specs import MIB
from workers.vocabulary.states import Reason, State


def lost_message(noun: str, why: str) -> str:
    """What a person is told when nobody can know how the work ended. ``why``: what its runtime knows."""
    why = why or "the machine or its launcher stopped"
    return f"{noun} is gone and left no exit code ({why}): its outcome is unknown"


def unprepared_message(noun: str, deaths: int) -> str:
    """What a person is told of a run that is not tried again: workers die of it before it even starts."""
    return f"{noun} was not started: its worker died {deaths} times while preparing it"


def unforeseen(error: OSError) -> PrepareFailed:
    """A fault of the node before anything was executed: no descriptor, no memory, a disk that fails."""
    return PrepareFailed(Reason.RUNTIME, f"its node cannot prepare it: {error}", ours=True)


def interpret(run: ClaimedRun, noun: str, result: Result, *, operator: bool, lost: str = "") -> Outcome:
    """How an attempt ended. ``noun`` begins the message: "Command exited with status 3".

    ``lost``: why nobody knows its end, if nobody does.
    """
    code = result.code if result.code is not None else 128 + result.signal if result.signal else None
    state, reason, message = State.FAILED, Reason.EXIT_CODE, f"{noun} exited with status {code}"
    if result.lost:
        reason, message = Reason.LOST, lost_message(noun, lost)
    elif result.error is not None:
        reason, message = Reason.CREATE, f"{noun} could not be started: {result.error}"
    elif result.killed == "cancel":
        state, reason = State.CANCELLED, Reason.OPERATOR if operator else Reason.NONE
        message = f"{noun} was killed by {'an operator' if operator else 'request'}"
    elif result.killed is not None:
        reason, message = _killed(run, noun, result)
    elif code == 0:
        # Its main process has the word: a process that was killed for memory explains a failure only.
        state, reason = State.SUCCEEDED, Reason.NONE
        if result.oom:
            message = f"{message} (a process of it was killed for lack of memory)"
    elif result.oom:
        reason, message = Reason.OOM, f"{message} (out of memory)"
    elif result.signal:
        message = f"{message} ({_signal_name(result.signal)})"
    return Outcome(run.lease, state, reason, message, code)


def _killed(run: ClaimedRun, noun: str, result: Result) -> tuple[Reason, str]:
    """We stopped it, and not because somebody asked to cancel it."""
    why = result.killed
    if why == "disk":
        limit, found = (result.told.get(key, 0) / MIB for key in ("limit", "found"))
        return Reason.DISK, (
            f"{noun} was killed: its working folder held {found:,.0f} MiB, the limit is {limit:,.0f} MiB; "
            "let it write less, or ask an operator for more (GANTRY_COMMAND_DISK_MB)"
        )
    if why == "timeout":
        return Reason.TIMEOUT, f"{noun} ran longer than its limit of {run.timeout_s} s and was killed"
    if why == "guard":
        cut_off = settings.GANTRY_NODE_LOST_AFTER_S - settings.GANTRY_GUARD_MARGIN_S
        return Reason.UNREACHABLE, (
            f"{noun} was killed by its node's guard: the node was cut off from the database for {cut_off} s"
        )
    if why == "node_gone":
        return Reason.NODE_GONE, f"{noun} was killed: its node was removed"
    if why == "crashes":
        return Reason.LOST, f"{noun} was killed: its worker died {run.crashes} times while it ran"
    return Reason.RUNTIME, f"{noun} was killed: {why}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def masked(text: str, hidden: tuple[str, ...]) -> str:
    """A message without the run's secrets: an engine may quote what it was asked to execute."""
    if not hidden:
        return text
    mask = Redactor(secret.encode() for secret in hidden)
    return mask.replace(text.encode(), last=True)[0].decode()


def noted(message: str, facts: Facts) -> str:
    """A message with what its runtime has to note about the attempt."""
    return f"{message} ({facts.note})" if facts.note else message


def with_facts(outcome: Outcome, shipment: Shipment, ran_s: float | None) -> Outcome:
    """An outcome with what is known of the attempt beside it: its output, how long it ran."""
    return replace(outcome, started_ago=ran_s, log_bytes=shipment.log_bytes, log_truncated=shipment.truncated)
