"""The documented taskStatus and message of a task, from the recorded facts of its run.

Pure: no database, no HTTP. Source: contract page 10, "taskStatus" and "message".

| state     | facts                                      | taskStatus          |
| --------- | ------------------------------------------ | ------------------- |
| PENDING   | any (also between two attempts)            | NOT_START (-1)      |
| RUNNING   | its attempt has not started                | STAGING (0)         |
| RUNNING   | its attempt has started                    | RUNNING (1)         |
| SUCCEEDED |                                            | FINISHED (2)        |
| FAILED    | exit_code, timeout, oom, disk, output, no reason | FAILED (3)    |
| FAILED    | lost                                       | LOST (4)            |
| FAILED    | image, create, input, rejected             | ERROR (5)           |
| FAILED    | runtime: never started / started           | ERROR (5) / FAILED (3) |
| CANCELLED | by a client                                | KILLED (6)          |
| FAILED    | unreachable                                | UNREACHABLE (7)     |
| FAILED    | dropped                                    | DROPPED (8)         |
| FAILED    | node_gone                                  | GONE (9)            |
| FAILED    | operator; CANCELLED by an operator         | GONE_BY_OPERATOR (10) |
| FAILED    | expired                                    | EXPIRED (12)        |

UNKNOWN (11) is documented and never sent. LOST, UNREACHABLE, DROPPED and GONE are final: a run with an
attempt left goes back to PENDING, and while a lease stands its run stays RUNNING and the message says
that the node is silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum
from typing import Final, NamedTuple

from workers.vocabulary.states import Reason, State


class TaskStatus(IntEnum):
    """The numbers of the family's documented table."""

    NOT_START = -1
    STAGING = 0
    RUNNING = 1
    FINISHED = 2
    FAILED = 3
    LOST = 4
    ERROR = 5
    KILLED = 6
    UNREACHABLE = 7
    DROPPED = 8
    GONE = 9
    GONE_BY_OPERATOR = 10
    UNKNOWN = 11
    EXPIRED = 12


class Facts(NamedTuple):
    """What is recorded about a task: one row of ``services.read``, in this order."""

    id: int
    name: str
    commands: str | None
    image: str | None
    state: str
    reason: str
    message: str
    exit_code: int | None
    attempt: int
    retries_left: int
    #: When the current attempt really started; None while it is being prepared, and before it.
    started_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    #: Set while it waits for its next try.
    not_before: datetime | None
    cancel_requested_at: datetime | None
    by_operator: bool
    callback_url: str
    shape_id: int
    node: str | None
    #: The node's hostname attribute.
    host: str | None
    #: Seconds since the node's last heartbeat.
    silent_s: float | None
    #: When the receiver last accepted a callback.
    callback_at: datetime | None = None


#: Reason -> status of a run that ended FAILED; runtime depends on the start and is not listed.
FAILED_STATUS: Final[dict[str, TaskStatus]] = {
    Reason.NONE: TaskStatus.FAILED,
    Reason.EXIT_CODE: TaskStatus.FAILED,
    Reason.TIMEOUT: TaskStatus.FAILED,
    Reason.OOM: TaskStatus.FAILED,
    Reason.DISK: TaskStatus.FAILED,
    Reason.OUTPUT: TaskStatus.FAILED,
    Reason.LOST: TaskStatus.LOST,
    Reason.IMAGE: TaskStatus.ERROR,
    Reason.CREATE: TaskStatus.ERROR,
    Reason.INPUT: TaskStatus.ERROR,
    Reason.REJECTED: TaskStatus.ERROR,
    Reason.UNREACHABLE: TaskStatus.UNREACHABLE,
    Reason.DROPPED: TaskStatus.DROPPED,
    Reason.NODE_GONE: TaskStatus.GONE,
    Reason.OPERATOR: TaskStatus.GONE_BY_OPERATOR,
    Reason.EXPIRED: TaskStatus.EXPIRED,
}

#: Reason -> what follows the word "Task" in a message of its own.
LABELS: Final[dict[str, str]] = {reason.value: reason.label for reason in Reason if reason}


def status(facts: Facts) -> TaskStatus:
    """The task's taskStatus: see the table in the module's docstring."""
    if facts.state == State.PENDING:
        return TaskStatus.NOT_START
    if facts.state == State.RUNNING:
        return TaskStatus.STAGING if facts.started_at is None else TaskStatus.RUNNING
    if facts.state == State.SUCCEEDED:
        return TaskStatus.FINISHED
    if facts.state == State.CANCELLED:
        operator = facts.by_operator or facts.reason == Reason.OPERATOR
        return TaskStatus.GONE_BY_OPERATOR if operator else TaskStatus.KILLED
    if facts.reason == Reason.RUNTIME:
        return TaskStatus.ERROR if facts.started_at is None else TaskStatus.FAILED
    return FAILED_STATUS.get(facts.reason, TaskStatus.FAILED)


def name(number: int) -> str:
    """The documented name of a taskStatus. Raises ValueError for a number outside the table."""
    return TaskStatus(number).name


def message(facts: Facts, waiting: Mapping[int, str], silent_after_s: float) -> str:
    """The task's message for a person.

    ``waiting``: shape id -> why runs of this shape wait now. ``silent_after_s``: a node that has not been
    heard for longer is called silent.
    """
    if facts.state == State.PENDING:
        return _waiting(facts, waiting.get(facts.shape_id, ""))
    if facts.state == State.RUNNING:
        return _running(facts, silent_after_s)
    if facts.state == State.CANCELLED:
        operator = status(facts) == TaskStatus.GONE_BY_OPERATOR
        return "task is removed by an operator" if operator else "task is killed"
    return _ended(facts)


def _waiting(facts: Facts, why: str) -> str:
    """While it waits for another attempt, the run's message tells how the last one ended."""
    if facts.attempt and facts.not_before is not None:
        why = f"its next attempt starts after {facts.not_before:%H:%M:%S} UTC"
    told = f"Task is waiting: {why or 'it is about to start'}"
    return f"{told} (attempt {facts.attempt}: {facts.message})" if facts.attempt and facts.message else told


def _running(facts: Facts, silent_after_s: float) -> str:
    doing = "being prepared" if facts.started_at is None else "running"
    if facts.silent_s is not None and facts.silent_s > silent_after_s:
        return (
            f"Node {facts.node} has been silent for {facts.silent_s:.0f} s; when last heard of, "
            f"the task was {doing} there"
        )
    if facts.cancel_requested_at is not None:
        return "Task is being killed"
    return facts.message or f"Task is {doing} on node {facts.node}"


def _ended(facts: Facts) -> str:
    """SUCCEEDED or FAILED: the engine's words; where it has none, the exit status or the reason."""
    if facts.message:
        return facts.message
    if facts.exit_code is None:
        return f"Task {LABELS.get(facts.reason, 'failed')}"
    noun = "Command" if facts.image is None else "Container"
    added = " (out of memory)" if facts.reason == Reason.OOM else ""
    return f"{noun} exited with status {facts.exit_code}{added}"
