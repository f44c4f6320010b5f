"""What the OpenAPI schema says about each route of runtask, with the seed's own examples.

Keyword arguments of drf-spectacular's ``extend_schema``, one dictionary per method of ``jobs.runtask.views``.
Must not import views, services or models.
"""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import OpenApiExample, OpenApiParameter

from jobs.runtask import serializers as shapes
from workers.api.schema import CALLBACK_HEADER, KEY, TENANT_HEADER

TAGS: Final = ["runtask"]

_JOB_ID: Final = OpenApiParameter("job_id", str, required=True, description="What /runtask/ answered.")
_CANCEL_ID: Final = OpenApiParameter("job_id", str, description="The job, if the body does not name it.")
_WAIT: Final = OpenApiParameter(
    "wait", float, description="Seconds to wait for the job's end (ours): 0 to 60, more is 60."
)
_PAGE: Final = [
    OpenApiParameter("limit", int, description="1 to 1000; without it everything is answered."),
    OpenApiParameter("cursor", str, description="Where the page begins: from the Link header."),
]

_ACCOUNT: Final[dict[str, Any]] = {
    "user": "admin",
    "key": "secret",
    "tenant": "admin",
    "authurl": "http://swift.example:5000/v2.0/",
}
DEFINITION_EXAMPLE: Final[dict[str, Any]] = {
    **_ACCOUNT,
    "container_name": "genomes",
    "file_name": "reads.fasta",
}
COMMAND_EXAMPLE: Final[dict[str, Any]] = {
    **_ACCOUNT,
    "cm": "clustalo -i {input_file[0]} -o {output_file}",
    "input_file": "genomes/reads.fasta",
    "output_file": "results/aligned.fasta",
    "wait_for_input": 3600,
}
#: The four answers of the seed.
SUBMITTED_EXAMPLE: Final[dict[str, Any]] = {"status": True, "job_id": "2"}
JOB_EXAMPLE: Final[dict[str, Any]] = {
    "job_id": "2",
    "job_done": True,
    "error": "",
    "status": True,
    "job_error": False,
    "out": "total 56\n-rw-rw-r-- 1 techbk techbk   82 Th01  6 23:33 config.py",
    "process_out": "total 56\n-rw-rw-r-- 1 techbk techbk   82 Th01  6 23:33 config.py",
}
FAILED_EXAMPLE: Final[dict[str, Any]] = {
    "job_id": "3",
    "job_done": True,
    "error": "awk: cannot open reads.fasta",
    "status": True,
    "job_error": True,
    "out": "",
    "error_message": "awk: cannot open reads.fasta",
}
LIST_EXAMPLE: Final[dict[str, Any]] = {"status": True, "empty": False, "jobs": ["2", "3"]}
RUNNING_EXAMPLE: Final[dict[str, Any]] = {"job_id": "2", "prevstatus": True, "status": True}
ENDED_EXAMPLE: Final[dict[str, Any]] = {"job_id": "2", "prevstatus": False, "status": True}
DEFINITIONS_EXAMPLE: Final[dict[str, Any]] = {
    "name": "default",
    "first": False,
    "parameters": 0,
    "description": "Count the sequences of a FASTA file",
}


def _error(status: int, message: str) -> OpenApiExample:
    return OpenApiExample(
        message.partition(":")[0],
        value={"status": False, "error_message": message},
        response_only=True,
        status_codes=[str(status)],
    )


_NO_JOB: Final = _error(404, "NotFound: there is no such job")
_SWIFT: Final = _error(
    502, "SwiftError: genomes/reads.fasta is not there: http://swift.example:8080 answered 404 Not Found"
)


def _errors(*statuses: int) -> dict[int, type[shapes.RuntaskErrorSerializer]]:
    """Errors of a route of its own; those that every route may answer are added by config.http.openapi."""
    return dict.fromkeys(statuses, shapes.RuntaskErrorSerializer)


def _ok(value: object, name: str = "ok") -> OpenApiExample:
    return OpenApiExample(name, value=value, response_only=True, status_codes=["200"])


def _sent(name: str, value: object) -> OpenApiExample:
    return OpenApiExample(name, value=value, request_only=True)


SUBMIT: Final[dict[str, Any]] = {
    "operation_id": "runtask_submit",
    "summary": "Submit a job",
    "tags": TAGS,
    "parameters": [
        TENANT_HEADER,
        KEY,
        CALLBACK_HEADER,
    ],
    "request": shapes.RuntaskBodySerializer,
    "responses": {200: shapes.RuntaskSubmittedSerializer, **_errors(400, 409, 413, 415, 502)},
    "examples": [
        _sent("a job definition", DEFINITION_EXAMPLE),
        _sent("a command line", COMMAND_EXAMPLE),
        _ok(SUBMITTED_EXAMPLE),
        _SWIFT,
    ],
}
JOB: Final[dict[str, Any]] = {
    "operation_id": "runtask_job",
    "summary": "How a job stands",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, _JOB_ID, _WAIT],
    "responses": {200: shapes.RuntaskJobSerializer, **_errors(400, 404)},
    "examples": [_ok(JOB_EXAMPLE), _ok(FAILED_EXAMPLE, "failed"), _NO_JOB],
}
LIST: Final[dict[str, Any]] = {
    "operation_id": "runtask_list",
    "summary": "The tenant's jobs",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, *_PAGE],
    "responses": {200: shapes.RuntaskListSerializer, **_errors(400)},
    "examples": [_ok(LIST_EXAMPLE)],
}
CANCEL: Final[dict[str, Any]] = {
    "operation_id": "runtask_cancel",
    "summary": "End a job",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, _CANCEL_ID],
    "request": shapes.RuntaskCancelSerializer,
    "responses": {200: shapes.RuntaskCancelledSerializer, **_errors(400, 404, 409, 413, 415)},
    "examples": [
        _sent("a job", {"job_id": "2"}),
        _ok(RUNNING_EXAMPLE, "was running"),
        _ok(ENDED_EXAMPLE, "was done"),
        _NO_JOB,
    ],
}
DEFINITIONS: Final[dict[str, Any]] = {
    "operation_id": "definitions_list",
    "summary": "What runtask can run",
    "tags": TAGS,
    "parameters": [
        TENANT_HEADER,
        OpenApiParameter("limit", int, description="1 to 1000; 100 when left out."),
        _PAGE[1],
    ],
    "responses": {200: shapes.RuntaskDefinitionSerializer(many=True)},
    "examples": [_ok(DEFINITIONS_EXAMPLE)],
}
