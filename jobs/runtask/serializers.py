"""The documented shapes of runtask, for the OpenAPI schema.

Requests are read and answers rendered by hand in ``jobs.runtask.asking`` and ``jobs.runtask.wire``; a test
compares the field names both ways. No queries, no create or update.
"""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from jobs.runtask.asking.requests import WAIT_MOST_S

_OPTIONAL: Final[dict[str, Any]] = {"required": False, "allow_blank": True}


class RuntaskErrorSerializer(serializers.Serializer[object]):
    """Every error of this family, whatever its HTTP status."""

    status = serializers.BooleanField(help_text="false")
    error_message = serializers.CharField(
        help_text="<kind>: <what>. Kinds: BadRequest, Unauthorized, Forbidden, NotFound, Conflict, TooLarge, "
        "TooManyRequests, SwiftError, InternalError."
    )


class RuntaskBodySerializer(serializers.Serializer[object]):
    """A job. Absent, empty and the text None mean the same for every optional parameter; unknown ones are
    ignored. Either a job definition (job, container_name, file_name, parameters or param_<name>) or a command
    line (cm, input_file, output_file)."""

    user = serializers.CharField(help_text="Of the Swift; with v1 it may be account:user.")
    key = serializers.CharField(help_text="The password. Kept encrypted, and wiped when the job ends.")
    tenant = serializers.CharField(help_text="Of the Swift: tenant, project or account.")
    authurl = serializers.CharField(help_text="v1, Keystone v2.0 or v3, with or without its version.")
    auth_version = serializers.CharField(**_OPTIONAL, help_text="1, 2 or 3, where authurl does not tell it.")
    user_domain_name = serializers.CharField(**_OPTIONAL, help_text="v3; Default when left out.")
    project_domain_name = serializers.CharField(**_OPTIONAL, help_text="v3; Default when left out.")
    job = serializers.CharField(
        **_OPTIONAL, help_text="The job definition; left out: the only one, else the one named default."
    )
    container_name = serializers.CharField(
        **_OPTIONAL,
        help_text="Of the object to fetch and of the output, <job_id>. Left out: the server's, made if "
        "missing.",
    )
    file_name = serializers.CharField(**_OPTIONAL, help_text="The object to fetch; left out: a first step.")
    parameters = serializers.JSONField(
        required=False,
        allow_null=True,
        help_text="For the job definition: a list of values, or an object of them by name; in a form its "
        "JSON, or one value. Or each as param_<name>, or param_1, param_2 ...",
    )
    cm = serializers.CharField(
        **_OPTIONAL,
        help_text="A command line for sh -c, with {input_file[0]}, {input_file[1]}, {output_file}; {{ and }} "
        "mean braces. Needs the policy runtask_cm.",
    )
    input_file = serializers.CharField(**_OPTIONAL, help_text="container/a|b|c: objects to fetch.")
    output_file = serializers.CharField(
        **_OPTIONAL,
        help_text="container/name of the object to store; the container is made if missing. Without "
        "{output_file} in cm it is the standard output.",
    )
    wait_for_input = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=WAIT_MOST_S,
        help_text="Seconds to wait for inputs that are not there yet (ours); left out: that is an error.",
    )


class RuntaskSubmittedSerializer(serializers.Serializer[object]):
    """A job was accepted."""

    status = serializers.BooleanField(help_text="true")
    job_id = serializers.CharField()


class RuntaskJobSerializer(serializers.Serializer[object]):
    """How a job stands."""

    job_id = serializers.CharField()
    job_done = serializers.BooleanField(help_text="It has ended.")
    job_error = serializers.BooleanField(help_text="It has failed, or was cancelled.")
    status = serializers.BooleanField(help_text="true: this answer is no error.")
    out = serializers.CharField(allow_blank=True, help_text="stdout, so far; its middle may be left out.")
    error = serializers.CharField(allow_blank=True, help_text="stderr, or why it failed.")
    process_out = serializers.CharField(
        required=False, allow_blank=True, help_text="out, once it is done without error."
    )
    error_message = serializers.CharField(required=False, help_text="error, if it has failed.")


class RuntaskListSerializer(serializers.Serializer[object]):
    """The ids of the tenant's jobs, the newest last."""

    status = serializers.BooleanField(help_text="true")
    empty = serializers.BooleanField(help_text="There are none.")
    jobs = serializers.ListField(child=serializers.CharField())


class RuntaskCancelSerializer(serializers.Serializer[object]):
    """The job to end, here or in the query."""

    job_id = serializers.CharField(required=False)


class RuntaskCancelledSerializer(serializers.Serializer[object]):
    """What the cancel found."""

    job_id = serializers.CharField()
    prevstatus = serializers.BooleanField(help_text="It was running or waiting until now.")
    status = serializers.BooleanField(help_text="true")


@extend_schema_field(
    {
        "oneOf": [{"type": "integer", "minimum": 0}, {"type": "array", "items": {"type": "string"}}],
        "description": "How many, or the names.",
    }
)
class ParametersField(serializers.Field[object, object, object, object]):
    """A number or a list of names."""


class RuntaskDefinitionSerializer(serializers.Serializer[object]):
    """A job definition that the server offers."""

    name = serializers.CharField()
    first = serializers.BooleanField(help_text="It can run without an input.")
    parameters = ParametersField()
    image = serializers.CharField(required=False, help_text="The container image that it runs in.")
    description = serializers.CharField(allow_blank=True)
