"""What the family stores: sites, credentials, links; jobs, elements, attempts, listings; batches.

Must not import views or other families.
"""

from workqueue.models.batches import Batch
from workqueue.models.jobs import Element, ElementAttempt, Job, ListingPart
from workqueue.models.sites import Credential, Link, LinkChange, Site

__all__ = [
    "Batch",
    "Credential",
    "Element",
    "ElementAttempt",
    "Job",
    "Link",
    "LinkChange",
    "ListingPart",
    "Site",
]
