"""The books of the workqueue: who has which element, what became of each attempt, what is left to do.

No element is lost and none is done twice, because every change of elements and of their job's counters is
made under the lock of the job's row, in one transaction, and a report is entered only under the lease of the
run that wrote it. Locks are taken in the order: the run (the scribe has it), the hand-out (advisory), the
job, its elements, the link.

opening      a job's first element
batches      a batch and its run: to which endpoints, and what a node needs for it
flow         streams: how many are free, how well links do
dispatching  elements that are ready become a batch and a run
telling      what a run has to do, read when it starts
expanding    what a listing found becomes elements
entering     what a run reports is entered, once
rows         elements of a batch while a report is entered
ending       attempts of elements end, and jobs
settling     batches whose run is over, cancelled jobs, listings that came to nothing
stopping     cancel and retry
explaining   why a job is where it is

The engine calls ``orders``, ``reported_until`` and ``report`` (``workers.vocabulary.transfers.book``).
Must not import views.
"""

from workqueue.book.entering import report, reported_until
from workqueue.book.telling import orders

__all__ = ["orders", "report", "reported_until"]
