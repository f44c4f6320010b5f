"""What the saved jobs family says on the wire: jobs, executors, results, the state table, file names.

Pure: no database, no HTTP. Requests are read in ``jobs.saved.requests``, errors rendered in
``jobs.saved.errors``. Source: contract page 20 and seed 001.

| run                                   | facts of its attempt     | Status         |
| ------------------------------------- | ------------------------ | -------------- |
| none (it could not be routed)         |                          | CREATE_FAILED  |
| PENDING                               | any                      | STARTING       |
| RUNNING                               | no exec                  | STARTING       |
| RUNNING                               | exec created             | CREATED        |
| RUNNING                               | started                  | RUNNING        |
| SUCCEEDED                             |                          | FINISHED       |
| FAILED, exit_code or oom with a code  |                          | FINISHED       |
| FAILED, create                        | any: nothing of it ran   | CREATE_FAILED  |
| FAILED otherwise, CANCELLED           | no exec                  | CREATE_FAILED  |
| FAILED otherwise, CANCELLED           | exec created or started  | RUNNING_FAILED |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from jobs.saved import requests
from workers.vocabulary.states import Reason, State

#: Output of a result, in bytes; all of it is in the log.
OUTPUT_MOST: Final = 64 * 1024

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_LABELS: Final = {reason.value: reason.label for reason in Reason if reason}


class Status(StrEnum):
    """The documented states of a result."""

    STARTING = "STARTING"
    CREATED = "CREATED"
    CREATE_FAILED = "CREATE_FAILED"
    RUNNING = "RUNNING"
    RUNNING_FAILED = "RUNNING_FAILED"
    FINISHED = "FINISHED"


#: Nothing more happens to these.
ENDED: Final = frozenset({Status.CREATE_FAILED, Status.RUNNING_FAILED, Status.FINISHED})


class JobFacts(NamedTuple):
    """A stored job: one row of ``services.JOBS``, in this order."""

    pk: int
    uuid: UUID
    app_name: str
    service_name: str
    name: str
    cmd: str
    privileged: bool
    user: str
    env: list[str]
    secret_lengths: list[int]
    #: Ids of its executors, oldest first.
    executors: list[int]


class ExecutorFacts(NamedTuple):
    """A start of a job, as the job was then: one row of ``services.EXECUTORS``."""

    pk: int
    job_uuid: UUID
    number: int
    create_time: float
    name: str
    cmd: str
    privileged: bool
    user: str
    secret_lengths: list[int]


class TargetFacts(NamedTuple):
    """A target with its run and the run's last attempt: one row of ``services.TARGETS``.

    ``run_id`` and everything after it is None where there is no run; then ``error`` says why.
    """

    executor_id: int
    container: str
    node: str
    error: str
    run_id: int | None
    state: str | None
    reason: str | None
    message: str | None
    exit_code: int | None
    attempt: int | None
    #: Seconds since 1970.
    started: float | None
    finished: float | None
    #: Retention has deleted its output.
    pruned: bool
    #: What the runtime found out: exec_id, container_id, pid.
    facts: Mapping[str, Any] | None


def status(target: TargetFacts) -> Status:
    """The documented Status of a target, in every answer and on every page."""
    if target.state is None:
        return Status.CREATE_FAILED
    return status_of(
        target.state, target.reason or "", target.exit_code, target.started is not None, target.facts or {}
    )


def status_of(
    state: str, reason: str, exit_code: int | None, begun: bool, facts: Mapping[str, Any]
) -> Status:
    """The documented Status of a run, for answers and callbacks alike: the table in the docstring above."""
    if state == State.PENDING:
        return Status.STARTING
    created = begun or bool(facts.get("exec_id"))
    if state == State.RUNNING:
        return Status.RUNNING if begun else Status.CREATED if created else Status.STARTING
    by_itself = reason in (Reason.EXIT_CODE, Reason.OOM) and exit_code is not None
    if state == State.SUCCEEDED or (state == State.FAILED and by_itself):
        return Status.FINISHED
    if not created or (state == State.FAILED and reason == Reason.CREATE):
        return Status.CREATE_FAILED
    return Status.RUNNING_FAILED


def failed(target: TargetFacts) -> bool:
    """Has it ended without success? That is what a retry runs again."""
    found = status(target)
    return found in ENDED and not (found is Status.FINISHED and target.state == State.SUCCEEDED)


def error(target: TargetFacts) -> str:
    """E: why a failed target failed."""
    return target.error or target.message or f"it was {_LABELS.get(target.reason or '', 'not run')}"


# --- Answers -----------------------------------------------------------------------------------------


def masks(lengths: Iterable[int]) -> list[str]:
    """Each secret as its asterisks, one for each character."""
    return ["*" * length for length in lengths]


def render_job(job: JobFacts) -> dict[str, Any]:
    """The job object; every key is always there."""
    return {
        "JobId": str(job.uuid),
        "AppName": job.app_name,
        "ServiceName": job.service_name,
        "Name": job.name,
        "Cmd": job.cmd,
        "Privileged": job.privileged,
        "User": job.user,
        "Env": job.env,
        "SecretArgs": masks(job.secret_lengths),
        "Executors": [str(number) for number in job.executors],
    }


def render_head(executor: ExecutorFacts, targets: Sequence[TargetFacts]) -> dict[str, Any]:
    """The executor object without its results."""
    return {
        "JobId": str(executor.job_uuid),
        "CreateTime": executor.create_time,
        "Target": [{"ContainerId": target.container, "NodeId": target.node} for target in targets],
    }


def render_result(executor: ExecutorFacts, target: TargetFacts, output: bytes) -> dict[str, Any]:
    """One result; ``output`` is the end of what it wrote. Clients know what runs by the missing last part."""
    found = status(target)
    facts = target.facts or {}
    ended = target.finished if target.state is not None else executor.create_time
    result: dict[str, Any] = {
        "NodeId": target.node,
        "ContainerId": target.container,
        "Status": str(found),
        "JobName": executor.name,
        "StartTime": target.started or 0,
        "EndTime": ended or 0,
    }
    if exec_id := facts.get("exec_id"):
        result["ID"] = exec_id
    if found in (Status.CREATE_FAILED, Status.RUNNING_FAILED):
        result["E"] = error(target)
    if found is not Status.FINISHED:
        return result
    entrypoint, *arguments = requests.words(executor.cmd)
    return result | {
        "ExitCode": target.exit_code or 0,
        "Pid": facts.get("pid", 0),
        "Running": False,
        "CanRemove": False,
        "OpenStdin": False,
        "OpenStdout": True,
        "OpenStderr": True,
        "DetachKeys": "",
        "ContainerID": facts.get("container_id", ""),
        "ProcessConfig": {
            "user": executor.user,
            "tty": False,
            "entrypoint": entrypoint,
            "arguments": arguments + masks(executor.secret_lengths),
            "privileged": executor.privileged,
        },
        "Output": output.decode(errors="replace"),
    }


def chosen(targets: Sequence[TargetFacts], container: str, node: str) -> Iterator[TargetFacts]:
    """The targets that ``ContainerId`` (as sent, or the full id) and, if given, ``NodeId`` mean, in order."""
    for target in targets:
        full = (target.facts or {}).get("container_id")
        if container in (target.container, full) and (not node or node == target.node):
            yield target


def log_name(container: str, now: datetime) -> str:
    """The file name of a downloaded log. What could break out of the header becomes an underscore."""
    return f"job-container-{_UNSAFE.sub('_', container)}-{now.astimezone(UTC):%Y-%m-%d-%H:%M:%S}.log"
