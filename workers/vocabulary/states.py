"""States and reasons of a run, and the table of legal transitions.

Pure: imports nothing of the engine, so that every layer may use it. ``docs/lifecycle.md`` shows the same
table and a test compares the two. Source: shared contract, "States of a run".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db.models import TextChoices


class State(TextChoices):
    """Where a run stands. Each line says who moves it on."""

    PENDING = (
        "PENDING",
        "Pending",
    )  # waits in the database; a node claims it, a client cancels it, the clock expires it
    RUNNING = (
        "RUNNING",
        "Running",
    )  # leased to a node; the node's worker finishes it, the reconciler if the node is lost
    SUCCEEDED = "SUCCEEDED", "Succeeded"  # final
    FAILED = "FAILED", "Failed"  # final
    CANCELLED = "CANCELLED", "Cancelled"  # final


FINAL: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class Reason(TextChoices):
    """Why a run is where it is: a detail beside the state. Each line says who writes it."""

    NONE = "", "-"  # nothing to explain
    EXIT_CODE = "exit_code", "ended with a non-zero exit code"  # the runner, from the runtime's result
    TIMEOUT = "timeout", "ran longer than allowed"  # the runner, after it stopped the run
    OOM = "oom", "out of memory"  # the runner, from the runtime's result
    DISK = "disk", "filled its disk"  # the runner, from the runtime's result
    IMAGE = "image", "its image cannot be had"  # the runner
    CREATE = "create", "could not be started"  # the runner: the user's specification cannot be executed
    RUNTIME = (
        "runtime",
        "the runtime failed",
    )  # the runner: our side or the engine failed, not the user's work
    INPUT = "input", "an input could not be fetched"  # the runner
    OUTPUT = "output", "an output could not be stored"  # the runner
    LOST = "lost", "the node answers, the work is gone"  # the runner or the agent of the run's own node
    UNREACHABLE = "unreachable", "its node fell silent"  # the reconciler
    DROPPED = (
        "dropped",
        "given to a node that never started it",
    )  # the reconciler, or the agent giving it back
    NODE_GONE = "node_gone", "its node was removed"  # the operator's removal of a node
    OPERATOR = "operator", "removed by an operator"  # an operator's cancel
    EXPIRED = "expired", "waited longer than allowed"  # the reconciler
    REJECTED = (
        "rejected",
        "refused by a policy",
    )  # claiming or the runner, when a policy changed after submission


@dataclass(frozen=True)
class Edge:
    """One legal transition. ``name`` is the function in ``transitions.py`` that makes it."""

    name: str
    source: State | None
    target: State
    when: str


EDGES: Final = (
    Edge("submit", None, State.PENDING, "a client's request is committed"),
    Edge(
        "claim",
        State.PENDING,
        State.RUNNING,
        "a node takes it: attempt and lease epoch grow, resources and host ports are reserved",
    ),
    Edge(
        "adopt",
        State.RUNNING,
        State.RUNNING,
        "the same node takes it over after a restart: only the lease epoch grows",
    ),
    Edge(
        "release",
        State.RUNNING,
        State.PENDING,
        "the node gives back what it never started; no try is used up",
    ),
    Edge(
        "retry", State.RUNNING, State.PENDING, "the attempt failed, tries are left and nobody asked to cancel"
    ),
    Edge("finish", State.RUNNING, State.SUCCEEDED, "the work ended with exit code 0"),
    Edge("finish", State.RUNNING, State.FAILED, "the work failed and no try is left"),
    Edge("finish", State.RUNNING, State.CANCELLED, "the worker stopped it because a cancel was requested"),
    Edge(
        "cancel", State.PENDING, State.CANCELLED, "a client or an operator cancels what has not been claimed"
    ),
    Edge("expire", State.PENDING, State.FAILED, "it waited longer than its limit"),
    Edge("reject", State.PENDING, State.FAILED, "a policy that changed after submission refuses it"),
)

#: How a run's message begins while its stop waits for something; then it says for what.
STOPPING: Final = "Stopping: "

LEGAL: Final = frozenset((edge.source, edge.target) for edge in EDGES)


def is_final(state: str) -> bool:
    """True for a state that nothing leaves."""
    return state in FINAL
