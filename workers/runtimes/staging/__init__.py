"""Staging: a run's inputs into its working folder before it starts, its outputs out of it afterwards.

    uris     http(s) addresses as inputs
    plan     the files that a spec names, with the storages they lie in
    folder   files beneath a run's working folder, wherever its links lead
    journal  what an attempt has done already: the next worker does not do it again
    tries    a storage's trouble outlasted: again, a little later, for a while
    progress how far it has come, in words
    inputs   fetching
    outputs  storing
    preparing  all that comes before the start, for a runtime

Must not import models, services or a runtime.
"""

from workers.runtimes.staging.outputs import OutputFailed, discard_outputs, store_outputs
from workers.runtimes.staging.plan import Plan
from workers.runtimes.staging.preparing import fetch_all
from workers.runtimes.staging.tries import Interrupted, Overdue, limited

__all__ = [
    "Interrupted",
    "OutputFailed",
    "Overdue",
    "Plan",
    "discard_outputs",
    "fetch_all",
    "limited",
    "store_outputs",
]
