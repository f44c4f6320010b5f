"""What a pull worker gets, in the documented shape: enums are integers, every key is there. Pure.

Source: contract page 40, "Pull workers".
"""

from __future__ import annotations

from typing import Any, Final

from workqueue.jobs.wire import monitoring, stamp, status
from workqueue.models import Element, Job
from workqueue.models.jobs import Type
from workqueue.pull.claiming import Handed
from workqueue.pull.tokens import Claim, sign

#: What the original's scripts take, by the type of the element.
_TAKEN: Final = {
    Type.LIST: ("depth", "timeout", "verbosity"),
    Type.COPY: ("overwrite", "parent", "nbstreams", "timeout", "verbosity"),
    Type.REMOVE: ("timeout", "verbosity"),
    Type.RENAME: ("timeout", "verbosity"),
    Type.MKDIR: ("permissions", "timeout", "verbosity"),
}
_PROTOCOLS: Final = {"GRIDFTP": 0, "SSH": 1}


def render(handed: Handed) -> dict[str, Any]:
    """A job with the elements that were handed out."""
    job = handed.job
    kind = Type(handed.elements[0].type)
    return {
        "id": job.pk,
        "user_id": job.user_id,
        "src_siteid": job.source_id,
        "dst_siteid": job.target_id,
        "src_filepath": job.src_filepath,
        "dst_filepath": job.dst_filepath,
        "type": int(job.type),
        "status": int(status(job)),
        "extra_opts": _options(job, kind),
        "priority": job.priority,
        "protocol": _PROTOCOLS[job.protocol],
        "log_uid": job.log_uid,
        "timestamp": stamp(job.changed_at),
        "src_credentials": handed.src_credentials,
        "dst_credentials": handed.dst_credentials,
        "elements": [_element(element, handed.batch) for element in handed.elements],
    }


def _element(element: Element, batch: int) -> dict[str, Any]:
    claim = Claim(element.job_id, element.number, element.attempts + 1, batch)
    return {
        "id": element.number,
        "job_id": element.job_id,
        "src_filepath": element.src_filepath,
        "dst_filepath": element.dst_filepath,
        "size": element.size,
        "max_tries": element.max_tries,
        "attempts": element.attempts,
        "type": int(element.type),
        "status": int(element.status),
        "timestamp": stamp(element.changed_at),
        "listing": None,
        "monitoring_info": monitoring(element),
        "token": sign(claim),
    }


def _options(job: Job, kind: Type) -> dict[str, Any]:
    given = {**job.extra_opts}
    if "parents" in given:
        given.setdefault("parent", given["parents"])
    return {name: given[name] for name in _TAKEN[kind] if name in given}
