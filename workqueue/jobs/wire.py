"""What jobs, elements and attempts look like on the wire. From rows to JSON: no queries.

v1.0 leaves out what a type has none of; v1.1 (``later``) has every key, null where there is none. Listings
are ``listings``' business. Source: contract page 40 and seed 002.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from workqueue.book.ending import status as status
from workqueue.models import Element, Job
from workqueue.models.jobs import Status, Type

#: Before any progress has been told.
UNKNOWN: Final = "N/A"
_TWO_PATHS: Final = (Type.COPY, Type.RENAME)
COUNTS: Final = ("num_new", "num_submitted", "num_running", "num_done", "num_failed")


def stamp(moment: datetime) -> str:
    """UTC, to the microsecond, without a zone."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def elements_of(job: Job) -> int:
    """How many elements it has. Others in the table belong to a listing that has not ended."""
    return sum(getattr(job, name) for name in COUNTS)


def render_job(job: Job, *, later: bool, registered: bool = False) -> dict[str, Any]:
    """The job object. ``registered``: the answer to a registration, which is SUBMITTED."""
    found: dict[str, Any] = {
        "id": job.pk,
        "user_id": job.user_id,
        "src_siteid": job.source_id,
        "dst_siteid": job.target_id,
        "src_filepath": job.src_filepath,
        "dst_filepath": job.dst_filepath,
        "type": Type(job.type).name,
        "status": (Status.SUBMITTED if registered else status(job)).name,
        "extra_opts": job.extra_opts,
        "priority": job.priority,
        "protocol": job.protocol,
        "log_uid": job.log_uid,
        "timestamp": stamp(job.changed_at),
    }
    if not later and job.type not in _TWO_PATHS:
        del found["dst_siteid"], found["dst_filepath"]
    return found


def render_counted(job: Job, *, later: bool) -> dict[str, Any]:
    """A job of the list, with its counts."""
    counts = {name: getattr(job, name) for name in COUNTS}
    return {**render_job(job, later=later), "num_elements": elements_of(job), **counts}


def render_element(element: Element, *, later: bool) -> dict[str, Any]:
    """The element object but its listing."""
    found: dict[str, Any] = {
        "id": element.number,
        "job_id": element.job_id,
        "src_filepath": element.src_filepath,
        "dst_filepath": element.dst_filepath,
        "size": element.size,
        "max_tries": element.max_tries,
        "attempts": element.attempts,
        "type": Type(element.type).name,
        "status": Status(element.status).name,
        "timestamp": stamp(element.changed_at),
    }
    if later:
        found["monitoring_info"] = monitoring(element)
    elif element.type not in _TWO_PATHS:
        del found["dst_filepath"]
    if element.escaped:
        found["escaped"] = True
    return found


def monitoring(element: Element) -> dict[str, Any] | None:
    """Bytes, bytes/s, seconds of the attempt that runs, or of the last one; None before any."""
    if element.transferred is None:
        return None
    elapsed = element.elapsed or 0.0
    return {
        "transferred": element.transferred,
        "average": element.transferred / elapsed if elapsed else 0.0,
        "instant": element.instant or 0.0,
        "elapsed": elapsed,
    }


def render_status(job: Job) -> dict[str, Any]:
    """The status of a job."""
    return {"jobid": job.pk, "status": status(job).name}


def render_element_status(element: Element) -> dict[str, Any]:
    """The status of an element, with its progress."""
    unknown = dict.fromkeys(("transferred", "average", "instant", "elapsed"), UNKNOWN)
    return {
        "jobid": element.job_id,
        "elementid": element.number,
        "status": Status(element.status).name,
        "attempts": element.attempts,
        **(monitoring(element) or unknown),
    }


def has_listing(element: Element) -> bool:
    """Only a LIST that is DONE has one."""
    return element.type == Type.LIST and element.status == Status.DONE
