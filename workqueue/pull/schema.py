"""What the OpenAPI document says about the pull workers' calls. Must not import views or services."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter

from workers.api.schema import asked, operation, shown
from workqueue.documented import errors, failed
from workqueue.pull import serializers as s

_TAG: Final = "workqueue workers"
_JOB: Final = OpenApiParameter("job_id", int, OpenApiParameter.PATH)
_ELEMENT: Final = OpenApiParameter("element_id", int, OpenApiParameter.PATH)
JOB_EXAMPLE: Final[dict[str, Any]] = {
    "id": 12,
    "user_id": 123,
    "src_siteid": 13,
    "dst_siteid": 15,
    "src_filepath": "~/file1.txt",
    "dst_filepath": "~/file2.txt",
    "type": 1,
    "status": 3,
    "extra_opts": {},
    "priority": 5,
    "protocol": 0,
    "log_uid": "7b875ac0229a4ba48e9d2e7758fe0da5",
    "timestamp": "2026-11-22T10:00:00.000000",
    "src_credentials": "",
    "dst_credentials": "",
    "elements": [
        {
            "id": 1,
            "job_id": 12,
            "src_filepath": "~/file1.txt",
            "dst_filepath": "~/file2.txt",
            "size": 123354523,
            "max_tries": 2,
            "attempts": 0,
            "type": 1,
            "status": 3,
            "timestamp": "2026-11-22T10:00:00.000000",
            "listing": None,
            "monitoring_info": None,
            "token": "12-1-1-7:...",
        }
    ],
}
PULL: Final = operation(
    "workqueue_worker_jobs_create",
    _TAG,
    "Hand out elements to a pull worker, under a lease",
    {200: s.PulledJobSerializer(many=True), **errors(400, 404)},
    request=s.PullSerializer,
    examples=[
        asked(
            "twenty elements of copies",
            {"types": [1], "algorithm": "BY_NUMBER", "algorithm.args": {"limit": 20}},
        ),
        shown("handed out", [JOB_EXAMPLE]),
        failed(404, "there is no work: ask again later"),
    ],
)
REPORT: Final = operation(
    "workqueue_worker_report",
    _TAG,
    "How an attempt of an element ended; the same once more is accepted and changes nothing",
    {200: None, **errors(400, 403, 404, 409)},
    parameters=[_JOB, _ELEMENT],
    request=s.ReportSerializer,
    examples=[
        asked(
            "copied",
            {"returncode": 0, "host": "worker-1", "log": "copied", "timestamp": "2026-11-22T10:00:05"},
        ),
    ],
)
MONITORING: Final = operation(
    "workqueue_worker_monitoring",
    _TAG,
    "How far an attempt is; it keeps its lease for longer",
    {200: None, **errors(400, 403, 404, 409)},
    parameters=[_JOB, _ELEMENT],
    request=s.MonitoringSerializer,
    examples=[
        asked("half of it", {"transferred": 61677261, "elapsed": 2.5, "instant": 25e6, "average": 24670904.4})
    ],
)
ENDPOINT: Final = operation(
    "site_endpoint_retrieve",
    _TAG,
    "Where a site is, for pull workers",
    {200: s.EndpointsSerializer, **errors(404)},
    parameters=[OpenApiParameter("site_id", int, OpenApiParameter.PATH)],
    examples=[
        shown("two endpoints", {"endpoints": ["gridftp.example.org:2811", "gridftp2.example.org:2811"]})
    ],
)
