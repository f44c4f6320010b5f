"""What passes between the database and a worker: leases, claimed runs, outcomes, runs to be.

Pure records: no database, no behaviour. ``transitions`` reads and writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workers.vocabulary.states import Reason, State


@dataclass(frozen=True, order=True)
class Lease:
    """The fence: a worker may write to ``run_id`` only under this attempt and epoch."""

    run_id: int
    attempt: int
    epoch: int


@dataclass(frozen=True)
class ClaimedRun:
    """All that a worker needs to know to execute a run, read at claim or adoption."""

    lease: Lease
    tenant: str
    tenant_id: int
    family: str
    kind: str
    name: str
    spec: dict[str, Any]
    cpu_m: int
    mem_mb: int
    retries_left: int
    timeout_s: int | None
    grace_s: int
    never_lost: bool
    cancel_requested: bool
    operator_cancel: bool
    #: Seconds since the command started, for an adopted run; None when it has not been recorded as started.
    started_ago: float | None
    crashes: int
    adopted: bool
    #: Another try follows only where the node or we failed.
    losses_only: bool = False
    #: Seconds since the attempt was claimed, for an adopted run.
    claimed_ago: float = 0.0
    #: Of a run that carries a batch: what it has to do, secrets included; read right before it starts.
    orders: Mapping[str, Any] | None = field(default=None, repr=False)
    #: Of such a run: up to which byte the attempt's report is in its family's books.
    reported: int = 0
    #: The spec's secrets in its order; the runner reads them, and no other place keeps them.
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. ``started_ago`` is seconds since its start, None if it never started."""

    lease: Lease
    state: State
    reason: Reason = Reason.NONE
    message: str = ""
    exit_code: int | None = None
    started_ago: float | None = None
    log_bytes: int = 0
    log_truncated: bool = False
    #: Seconds until the next try; used by ``retry`` and ``release`` only.
    backoff_s: float = 0.0
    #: Added to the attempt's facts; see ``Attempt.facts``.
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NewRun:
    """A row to be; see ``services.Submission`` for the meaning of each field."""

    tenant_id: int
    family: str
    kind: str
    name: str
    owner_id: str
    shape_id: int
    spec: str
    priority: int
    retries: int
    timeout_s: int | None
    grace_s: int
    expires_in_s: int
    callback_url: str
    retry_of: int | None
    losses_only: bool = False
    private_to: int | None = None
