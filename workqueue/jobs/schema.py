"""What the OpenAPI document says about jobs, with the seed's own examples. Must not import views or services.

Each dictionary is a call at v1.0; ``LATER`` has what is other at v1.1.
"""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter

from workers.api.schema import CALLBACK_HEADER, KEY, asked, operation, shown
from workqueue.documented import PAGE, errors, failed
from workqueue.jobs import serializers as s
from workqueue.jobs.examples import (
    BODIES,
    COUNTS_EXAMPLE,
    ELEMENT_EXAMPLE,
    EXPLANATION_EXAMPLE,
    FAILED_EXAMPLE,
    JOB_EXAMPLE,
    LATER_ELEMENT_EXAMPLE,
    LATER_LIST_ELEMENT_EXAMPLE,
    LATER_LIST_OUTPUT_EXAMPLE,
    LIST_ELEMENT_EXAMPLE,
    LIST_OUTPUT_EXAMPLE,
    OUTPUT_EXAMPLE,
    registered,
)

_TAG: Final = "workqueue"
_JOB: Final = OpenApiParameter("job_id", int, OpenApiParameter.PATH)
_ELEMENT: Final = OpenApiParameter("element_id", int, OpenApiParameter.PATH, description="0, 1, 2...")
_ATTEMPT: Final = OpenApiParameter(
    "attempt", int, OpenApiParameter.PATH, description="From 1; from the end: -1 is the latest."
)
_NO_JOB: Final = failed(404, "there is no job 12345")
_NO_ELEMENT: Final = failed(404, "job 12345 has no element 1")
_NO_SITE: Final = failed(404, "src_siteid: there is no site 12")


def _post(name: str, summary: str, body: type[Any]) -> dict[str, Any]:
    return operation(
        f"workqueue_{'jobs_create' if name == 'jobs' else name}",
        _TAG,
        summary,
        {200: s.TransferSerializer, **errors(400, 404, 409)},
        parameters=[KEY, CALLBACK_HEADER],
        request=body,
        examples=[asked(name, BODIES[name]), shown("registered", registered(name)), _NO_SITE],
    )


def _get(
    name: str,
    summary: str,
    shape: Any,
    *examples: object,
    parameters: tuple[Any, ...] = (_JOB,),
    missing: Any = _NO_JOB,
    more: dict[Any, Any] | None = None,
) -> dict[str, Any]:
    told = [shown(f"example {number}", value) for number, value in enumerate(examples, 1)]
    return operation(
        f"workqueue_{name}",
        _TAG,
        summary,
        {200: shape, **errors(404), **(more or {})},
        parameters=list(parameters),
        examples=[*told, missing],
    )


_ONE: Final = (_JOB, _ELEMENT)
_OUTPUTS: Final = s.TransferOutputSerializer

JOBS: Final = operation(
    "workqueue_jobs_list",
    _TAG,
    "The caller's jobs",
    {200: s.CountedTransferSerializer(many=True), **errors(400)},
    parameters=PAGE,
    examples=[shown("a job", {**JOB_EXAMPLE, **COUNTS_EXAMPLE})],
)
CREATE: Final = _post("jobs", "Register a job", s.TransferBodySerializer)
POSTS: Final = {
    "list": _post("list", "Register a listing", s.TransferListBodySerializer),
    "copy": _post("copy", "Register a copy", s.TransferCopyBodySerializer),
    "remove": _post("remove", "Register a removal", s.TransferListBodySerializer),
    "rename": _post("rename", "Register a renaming", s.TransferRenameBodySerializer),
    "mkdir": _post("mkdir", "Register the making of a directory", s.TransferListBodySerializer),
}
JOB: Final = _get("jobs_retrieve", "One job", s.TransferSerializer, JOB_EXAMPLE)
ELEMENTS: Final = _get(
    "elements_list",
    "The elements of a job",
    s.TransferElementSerializer(many=True),
    ELEMENT_EXAMPLE,
    parameters=(_JOB, *PAGE),
    more=errors(400),
)
ELEMENT: Final = _get(
    "elements_retrieve",
    "One element",
    s.TransferElementSerializer,
    ELEMENT_EXAMPLE,
    LIST_ELEMENT_EXAMPLE,
    parameters=_ONE,
    missing=_NO_ELEMENT,
)
OUTPUT: Final = _get(
    "jobs_output",
    "The latest output of all elements",
    _OUTPUTS(many=True),
    LIST_OUTPUT_EXAMPLE,
    OUTPUT_EXAMPLE,
    parameters=(_JOB, *PAGE),
    more=errors(400),
)
ELEMENT_OUTPUT: Final = _get(
    "elements_output",
    "The latest output of an element",
    _OUTPUTS,
    OUTPUT_EXAMPLE,
    parameters=_ONE,
    missing=_NO_ELEMENT,
)
ATTEMPT_OUTPUT: Final = _get(
    "elements_output_attempt",
    "The output of one attempt",
    _OUTPUTS,
    FAILED_EXAMPLE,
    parameters=(*_ONE, _ATTEMPT),
    missing=failed(404, "element 1 of job 12 has no attempt 3 that has ended"),
    more=errors(400),
)
STATUS: Final = _get(
    "jobs_status", "The status of a job", s.TransferStatusSerializer, {"jobid": 12, "status": "DONE"}
)
ELEMENT_STATUS: Final = _get(
    "elements_status",
    "The status and progress of an element",
    s.TransferElementStatusSerializer,
    {
        "jobid": 12,
        "elementid": 1,
        "status": "DONE",
        "attempts": 2,
        "transferred": 123354523,
        "average": 2.5e7,
        "instant": 2.6e7,
        "elapsed": 4.9,
    },
    {
        "jobid": 12,
        "elementid": 2,
        "status": "NEW",
        "attempts": 0,
        **dict.fromkeys(("transferred", "average", "instant", "elapsed"), "N/A"),
    },
    parameters=_ONE,
    missing=_NO_ELEMENT,
)
PROGRESS: Final = _get(
    "jobs_progress",
    "How far a job is",
    s.TransferProgressSerializer,
    {
        "jobid": 12,
        "status": "RUNNING",
        **COUNTS_EXAMPLE,
        "num_running": 1,
        "num_done": 1,
        "bytes_total": 123354523,
        "bytes_done": 0,
        "transferred": 62914560,
        "instant": 2.6e7,
    },
)
EXPLAIN: Final = _get(
    "jobs_explain", "Why a job is where it is", s.TransferExplanationSerializer, EXPLANATION_EXAMPLE
)
MANIFEST: Final = operation(
    "workqueue_jobs_manifest",
    _TAG,
    "What a finished job did, signed: JSON Lines, first a head, then a line for each element",
    {(200, "text/plain"): OpenApiTypes.STR, **errors(404, 409)},
    parameters=[_JOB],
)
CANCEL: Final = _get(
    "jobs_cancel",
    "End what has not ended of a job",
    s.TransferCancelSerializer,
    {"jobid": 12, "status": "FAILED", "cancelled": True},
)
RETRY: Final = _get(
    "jobs_retry",
    "Let the failed elements of a job go again",
    s.TransferRetrySerializer,
    {"jobid": 12, "status": "SUBMITTED", "retried": 3},
    parameters=(_JOB, KEY),
    more=errors(400, 409),
)


def _later(at: dict[str, Any], shape: Any, *examples: object) -> dict[str, Any]:
    told = [shown(f"example {number}", value) for number, value in enumerate(examples, 1)]
    rest = [each for each in at["examples"] if each.request_only or each.status_codes != ["200"]]
    return {**at, "responses": {**at["responses"], 200: shape}, "examples": [*rest, *told]}


#: The shape that other calls of v1.1 describe: a list of lists cannot be said otherwise.
_LATER_OUTPUT: Final = {"$ref": "#/components/schemas/LaterTransferOutput"}
#: v1.1: the calls whose answers are other there.
LATER: Final = {
    "jobs": _later(JOBS, s.LaterCountedTransferSerializer(many=True), {**JOB_EXAMPLE, **COUNTS_EXAMPLE}),
    "create": _later(CREATE, s.LaterTransferSerializer, registered("jobs", later=True)),
    **{
        name: _later(at, s.LaterTransferSerializer, registered(name, later=True))
        for name, at in POSTS.items()
    },
    "job": _later(JOB, s.LaterTransferSerializer, JOB_EXAMPLE),
    "elements": _later(ELEMENTS, s.LaterTransferElementSerializer(many=True), LATER_ELEMENT_EXAMPLE),
    "element": _later(
        ELEMENT, s.LaterTransferElementSerializer, LATER_ELEMENT_EXAMPLE, LATER_LIST_ELEMENT_EXAMPLE
    ),
    "output": _later(
        OUTPUT,
        {"type": "array", "items": {"type": "array", "items": _LATER_OUTPUT}},
        [[LATER_LIST_OUTPUT_EXAMPLE], [FAILED_EXAMPLE, OUTPUT_EXAMPLE], []],
    ),
    "element_output": _later(ELEMENT_OUTPUT, s.LaterTransferOutputSerializer(many=True), FAILED_EXAMPLE),
    "attempt_output": _later(ATTEMPT_OUTPUT, s.LaterTransferOutputSerializer, FAILED_EXAMPLE),
}
