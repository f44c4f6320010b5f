"""A run in a worker's hands: what the agent, the keeper and the runner tell each other of it.

Must not import any of the three, nor the database.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from workers.runtimes.base import Presence
from workers.vocabulary.leases import ClaimedRun, Lease


@dataclass
class Watch:
    """A run in this worker's hands. The agent sets the flags, the runner looks at them."""

    run: ClaimedRun
    #: When the database last confirmed its lease (``Keeper.as_of``); the guard refuses to start on old news.
    as_of: float
    cancel: threading.Event = field(default_factory=threading.Event)
    operator: bool = False
    #: The lease was taken away: write nothing more.
    fenced: threading.Event = field(default_factory=threading.Event)
    #: Another reason to stop it than a cancel, as given to the runtime: "node_gone", "crashes".
    stop_why: str = ""
    handed_at: float = field(default_factory=time.monotonic)
    #: Its end is being written: a lease that cannot be renewed any more says nothing.
    closing: bool = False
    #: True once something of it may run: a cancel then stops it without waiting for the runner's next look.
    started: bool = False

    @property
    def lease(self) -> Lease:
        return self.run.lease


class Detached(Exception):
    """The worker stops, or the lease is gone: leave everything as it is."""


def ran_for(run: ClaimedRun, presence: Presence) -> float:
    """Seconds since its start. One that its worker did not live to record came soon after the claim.

    A time limit that began with each adoption could be put off for ever.
    """
    if run.started_ago is not None:
        return run.started_ago
    return run.claimed_ago if presence in (Presence.RUNNING, Presence.EXITED) else 0.0
