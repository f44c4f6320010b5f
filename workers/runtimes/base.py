"""The protocol of a runtime: how a run of one kind is executed on a node, and what every runtime must hold.

Conformance rules (one suite runs over all of them):
- ``start`` is idempotent by the attempt's name: whatever was started under it before is adopted, never
  started again, also after the death of the worker that started it.
- ``presence`` tells the truth from outside of this process; "lost" is never reported as success.
- ``stop`` ends everything that belongs to the attempt: TERM, after the grace period KILL; it may be repeated.
- ``cleanup`` removes every trace of the attempt; it is called only after result and log are stored.
- No method needs the database.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from workers.logs.capture import Shipment
from workers.vocabulary.leases import ClaimedRun
from workers.vocabulary.states import Reason


class Presence(Enum):
    """What is there of an attempt on this node."""

    ABSENT = "absent"  # nothing: it was never started here
    PREPARED = "prepared"  # folders, perhaps inputs; nothing was ever executed
    RUNNING = "running"
    EXITED = "exited"  # the result is there
    LOST = "lost"  # it was started; neither work nor result is left
    UNKNOWN = "unknown"  # who could tell does not answer now: ask again


@dataclass(frozen=True)
class Result:
    """How an attempt's work ended, as the runtime saw it: separate facts, no interpretation.

    ``code`` is the exit code, ``signal`` the signal that ended the main process; ``killed`` why we stopped
    it (the ``why`` given to ``stop``), None when it ended by itself; ``error`` why it could not be executed.
    ``ran_s`` is the time from start to end in seconds.
    """

    code: int | None = None
    signal: int | None = None
    killed: str | None = None
    error: str | None = None
    oom: bool = False
    #: Of a limit that ended it, ``killed`` says of which: "limit" and what was "found", in bytes.
    told: Mapping[str, int] = field(default_factory=dict)
    #: Neither work nor result is left: the outcome is unknown.
    lost: bool = False
    ran_s: float = 0.0


@dataclass(frozen=True)
class Facts:
    """What is known about an attempt beside its result.

    ``told`` is a small JSON object that is kept with the attempt (``Attempt.facts``): the "image_digest" of a
    container, "exec_id", "container_id" and "pid" of an exec. ``note`` belongs into the run's message at
    its end. ``waits`` is what a stop that was asked for waits for beyond its grace period; empty when for
    nothing. ``lost`` is why nobody knows how it ended, in words; empty where the runtime does not know.
    """

    told: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    waits: str = ""
    lost: str = ""


@dataclass(frozen=True)
class Places:
    """Where an attempt's files lie on this node.

    ``work`` is the run's working folder, which the run may fill as it likes; ``control`` is ours alone;
    ``streams`` are the files of its output by name ("stdout"); of those in ``holed`` bytes are missing, once
    it has ended.
    """

    work: Path
    control: Path
    streams: Mapping[str, Path]
    holed: Collection[str] = ()


class Output(Protocol):
    """Reads an attempt's output as it grows; one object per watcher. ``SpoolReader`` is one."""

    def pending(self, final: bool = False) -> Shipment:
        """What is new, bounded; repeat while it says ``more``. ``final`` after the end of the work."""
        ...

    def mark(self, shipment: Shipment) -> None:
        """The shipment is stored: go on after it."""
        ...


class PrepareFailed(Exception):
    """The attempt cannot be prepared. ``ours`` is True when the node is to blame, not the run.

    Then the run is offered again after ``wait_s`` seconds, and no try is used up.
    """

    def __init__(self, reason: Reason, message: str, *, ours: bool = False, wait_s: float = 5.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.ours = ours
        self.wait_s = wait_s


class Runtime(Protocol):
    """One way of executing runs. ``noun`` begins its messages: "Command exited with status 3"."""

    kind: str
    noun: str

    def presence(self, run: ClaimedRun) -> Presence: ...

    def prepare(self, run: ClaimedRun, cancelled: Callable[[], bool], tell: Callable[[str], None]) -> None:
        """Make folders and fetch inputs. Raises PrepareFailed; ``cancelled`` is asked while it takes time.

        ``tell`` says to the run's owner what is being done, as often as it likes.
        """
        ...

    def start(self, run: ClaimedRun, as_of: float) -> None:
        """Start, or adopt what was started under the attempt's name. Raises PrepareFailed.

        ``as_of`` is when the database last confirmed the lease, in seconds since the machine's start: on
        news so old that the attempt may have been given up meanwhile nothing is started.
        """
        ...

    def wait(self, run: ClaimedRun, timeout_s: float) -> Result | None:
        """The result, or None when it still runs after ``timeout_s``."""
        ...

    def stop(self, run: ClaimedRun, why: str, grace_s: float) -> None: ...

    def facts(self, run: ClaimedRun) -> Facts:
        """What is known about an attempt by now; asks nobody.

        The runner stores it after ``prepare``, at the start and with the end; its keys add up.
        """
        ...

    def output(self, run: ClaimedRun, shipped: dict[int, int]) -> Output: ...

    def places(self, run: ClaimedRun) -> Places | None:
        """Where its files lie, for what is stored after its end; None where there is nothing to store."""
        ...

    def cleanup(self, run_id: int, attempt: int) -> None:
        """Raises OSError, in words for an operator, when something cannot be removed: it is called again."""
        ...

    def attempts(self) -> list[tuple[int, int]]:
        """(run, attempt) of everything of ours that this node holds, for the search for orphans."""
        ...

    def kill_orphan(self, run_id: int, attempt: int) -> None: ...

    def renewed(self, as_of: float, kill_after_s: float, lost_after_s: float) -> None:
        """The database knew at ``as_of`` that this node lives; never raises.

        Without further news the guard stops everything ``kill_after_s`` later, so that it is dead
        ``lost_after_s`` later, when another node may begin the next attempt.
        """
        ...

    def trouble(self) -> str:
        """Why this runtime cannot take work now, in words; empty when all is well."""
        ...


@runtime_checkable
class Answering(Protocol):
    """A runtime that answers questions of the API about its engine (``workers.asking``)."""

    def lookups(self) -> Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        """Kind of question -> function from its payload to its answer. A call takes 2 s at most.

        What cannot be told is said in the answer as {"error": "why"}; nothing is raised.
        """
        ...
