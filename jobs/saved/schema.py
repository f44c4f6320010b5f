"""What the OpenAPI schema says about each route of saved jobs, with the seed's own examples.

Keyword arguments of drf-spectacular's ``extend_schema``, one dictionary per method of ``jobs.saved.views``.
Must not import views, services or models.
"""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse

from jobs.saved import serializers as shapes
from workers.api.runs.schema import EXPLANATION_EXAMPLE
from workers.api.schema import KEY, TENANT_HEADER

TAGS: Final = ["jobs"]

_JOB: Final = OpenApiParameter("job_id", str, OpenApiParameter.PATH, description="JobId, a UUID")
_EXECUTOR: Final = OpenApiParameter(
    "executor_id", str, OpenApiParameter.PATH, description="One of the job's Executors: whole seconds"
)
_APP: Final = OpenApiParameter("AppName", str, description="Of this application only; empty: of all.")
_PAGE: Final = [
    OpenApiParameter("limit", int, description="1 to 1000; without it everything is answered."),
    OpenApiParameter("cursor", str, description="Where the page begins: from the Link header."),
]
_IDS: Final = [TENANT_HEADER, _JOB, _EXECUTOR]

JOB_ID: Final = "5d1c8f5e-6a0f-4c5f-9c0b-1a2b3c4d5e6f"
_BODY: Final[dict[str, Any]] = {
    "AppName": "2048",
    "ServiceName": "2048_2048",
    "Name": "上线",
    "Cmd": "ps axu",
    "Privileged": True,
    "User": "root:root",
    "Env": ["a=b", "c=d"],
}
BODY_EXAMPLE: Final[dict[str, Any]] = {**_BODY, "SecretArgs": ["xxx", "yyy"]}
KEEPING_EXAMPLE: Final[dict[str, Any]] = {**_BODY, "SecretArgs": ["*", "**"]}
JOB_EXAMPLE: Final[dict[str, Any]] = {
    "JobId": JOB_ID,
    **_BODY,
    "SecretArgs": ["*", "**"],
    "Executors": ["1496287601", "1496287694"],
}
_TARGETS: Final = [
    {
        "ContainerId": "a6c71c6f032a49487bc49d51d4de6d763a44e59addfc4a1c1b161a0728499f66",
        "NodeId": "guv4tovwx67oa4j9evjrcgg5v",
    },
    {
        "ContainerId": "c2ed986a541c8336f8f2c88230de1a53bfd0c8d6929d2c7bda09185cbf3c8c5c",
        "NodeId": "wn99oc5gv7u0ugt7yih5ymdw4",
    },
]
FINISHED_EXAMPLE: Final[dict[str, Any]] = {
    "NodeId": _TARGETS[0]["NodeId"],
    "ContainerId": _TARGETS[0]["ContainerId"],
    "Status": "FINISHED",
    "JobName": "上线",
    "StartTime": 1496287694.512204,
    "EndTime": 1496287704.530114,
    "ID": "af161f8029c9f845531d09b801594363dd09a0865a9f6c30e11119d1a9966457",
    "ExitCode": 0,
    "Pid": 27396,
    "Running": False,
    "CanRemove": False,
    "OpenStdin": False,
    "OpenStdout": True,
    "OpenStderr": True,
    "DetachKeys": "",
    "ContainerID": _TARGETS[0]["ContainerId"],
    "ProcessConfig": {
        "user": "root:root",
        "tty": False,
        "entrypoint": "sleep",
        "arguments": ["10"],
        "privileged": True,
    },
    "Output": "",
}
RUNNING_EXAMPLE: Final[dict[str, Any]] = {
    "NodeId": _TARGETS[1]["NodeId"],
    "ContainerId": _TARGETS[1]["ContainerId"],
    "Status": "RUNNING",
    "JobName": "上线",
    "StartTime": 1496287694.520871,
    "EndTime": 0,
    "ID": "980d0317a8bbac3a20bfac5134881219c7dfb7c85598270f03ea0e0ab1152b66",
}
EXECUTOR_EXAMPLE: Final[dict[str, Any]] = {
    "JobId": JOB_ID,
    "CreateTime": 1496287694.460088,
    "Target": _TARGETS,
    "Result": [FINISHED_EXAMPLE, RUNNING_EXAMPLE],
}
WHY_EXAMPLE: Final[dict[str, Any]] = {
    "JobId": JOB_ID,
    "CreateTime": 1496287694.460088,
    "Result": [{**_TARGETS[1], "Status": "STARTING", "Explanation": EXPLANATION_EXAMPLE}],
}


def _error(status: int, error_id: str, message: str) -> OpenApiExample:
    return OpenApiExample(
        error_id, value={"message": message, "id": error_id}, response_only=True, status_codes=[str(status)]
    )


_NO_JOB: Final = _error(404, "job_id_not_found", JOB_ID)
_NO_EXECUTOR: Final = _error(404, "executor_id_not_found", "1496287694")
_TAKEN: Final = _error(400, "jobs_name_duplicated_error", "上线")


def _errors(*statuses: int) -> dict[int, type[shapes.JobErrorSerializer]]:
    """Errors of a route of its own; those that every route may answer are added by config.http.openapi."""
    return dict.fromkeys(statuses, shapes.JobErrorSerializer)


def _ok(value: object) -> OpenApiExample:
    return OpenApiExample("ok", value=value, response_only=True, status_codes=["200"])


def _sent(name: str, value: object) -> OpenApiExample:
    return OpenApiExample(name, value=value, request_only=True)


LIST: Final[dict[str, Any]] = {
    "operation_id": "jobs_list",
    "summary": "The saved jobs",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, _APP, *_PAGE],
    "responses": {200: shapes.JobSerializer(many=True), **_errors(400)},
    "examples": [_ok(JOB_EXAMPLE)],
}
CREATE: Final[dict[str, Any]] = {
    "operation_id": "jobs_create",
    "summary": "Save a job",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, KEY],
    "request": shapes.JobBodySerializer,
    "responses": {200: shapes.JobSerializer, **_errors(400, 409, 413, 415)},
    "examples": [_sent("job", BODY_EXAMPLE), _ok(JOB_EXAMPLE), _TAKEN],
}
REPLACE: Final[dict[str, Any]] = {
    "operation_id": "jobs_replace",
    "summary": "Replace a job",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, _JOB],
    "request": shapes.JobBodySerializer,
    "responses": {200: shapes.JobSerializer, **_errors(400, 404, 413, 415)},
    "examples": [_sent("job, secrets kept", KEEPING_EXAMPLE), _ok(JOB_EXAMPLE), _TAKEN, _NO_JOB],
}
DELETE: Final[dict[str, Any]] = {
    "operation_id": "jobs_delete",
    "summary": "Delete a job",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, _JOB],
    "responses": {202: OpenApiResponse(OpenApiTypes.STR, "Deleted"), **_errors(404)},
    "examples": [OpenApiExample("ok", value="", response_only=True, status_codes=["202"]), _NO_JOB],
}
START: Final[dict[str, Any]] = {
    "operation_id": "jobs_start",
    "summary": "Start a job",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, _JOB, KEY],
    "request": shapes.JobStartSerializer,
    "responses": {200: shapes.JobSerializer, **_errors(400, 404, 409, 413, 415)},
    "examples": [_sent("two containers", {"Target": _TARGETS}), _ok(JOB_EXAMPLE), _NO_JOB],
}
INSPECT: Final[dict[str, Any]] = {
    "operation_id": "jobs_inspect",
    "summary": "What came of a start",
    "tags": TAGS,
    "parameters": _IDS,
    "responses": {200: shapes.JobExecutorSerializer, **_errors(404)},
    "examples": [_ok(EXECUTOR_EXAMPLE), _NO_JOB, _NO_EXECUTOR],
}
LOG: Final[dict[str, Any]] = {
    "operation_id": "jobs_log",
    "summary": "Download a container's output",
    "tags": TAGS,
    "parameters": [
        *_IDS,
        OpenApiParameter("ContainerId", str, required=True, description="As sent in Target, or the full id."),
        OpenApiParameter("NodeId", str, description="Where several results have this container."),
    ],
    "responses": {(200, "text/plain"): OpenApiTypes.STR, **_errors(400, 404)},
    "examples": [_NO_JOB, _NO_EXECUTOR, _error(404, "container_id_not_found", "a6c71c6f032a")],
}
HISTORY: Final[dict[str, Any]] = {
    "operation_id": "jobs_history",
    "summary": "All starts",
    "tags": TAGS,
    "parameters": [
        TENANT_HEADER,
        _APP,
        OpenApiParameter("JobId", str, description="Of this job only."),
        *_PAGE,
    ],
    "responses": {200: shapes.JobExecutorSerializer(many=True), **_errors(400)},
    "examples": [_ok(EXECUTOR_EXAMPLE)],
}
CANCEL: Final[dict[str, Any]] = {
    "operation_id": "jobs_cancel",
    "summary": "End what still runs of a start",
    "tags": TAGS,
    "parameters": _IDS,
    "request": None,
    "responses": {200: shapes.JobSerializer, **_errors(404)},
    "examples": [_ok(JOB_EXAMPLE), _NO_JOB, _NO_EXECUTOR],
}
RETRY: Final[dict[str, Any]] = {
    "operation_id": "jobs_retry",
    "summary": "Start again where a start failed",
    "tags": TAGS,
    "parameters": [*_IDS, KEY],
    "request": None,
    "responses": {200: shapes.JobSerializer, **_errors(404, 409)},
    "examples": [_ok(JOB_EXAMPLE), _NO_JOB, _NO_EXECUTOR],
}
EXPLAIN: Final[dict[str, Any]] = {
    "operation_id": "jobs_explain",
    "summary": "Why targets are where they are",
    "tags": TAGS,
    "parameters": _IDS,
    "responses": {200: shapes.JobExplanationSerializer, **_errors(404)},
    "examples": [_ok(WHY_EXAMPLE), _NO_JOB, _NO_EXECUTOR],
}
