"""The documented shapes of the tasks family, for the OpenAPI schema.

Requests are read and answers rendered by hand in ``tasks_api.submission`` and ``tasks_api.wire`` (that is
several times faster); a test compares the field names both ways. No queries, no create or update.
"""

# ruff: noqa: N815  the names are the wire's

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field, inline_serializer
from rest_framework import serializers

from workers.api.runs.serializers import ExplanationSerializer

STATUS_HELP = (
    "NOT_START -1, STAGING 0, RUNNING 1, FINISHED 2, FAILED 3, LOST 4, ERROR 5, KILLED 6, UNREACHABLE 7, "
    "DROPPED 8, GONE 9, GONE_BY_OPERATOR 10, UNKNOWN 11, EXPIRED 12; everything above 1 is final"
)
DATE_HELP = "UTC, like Dec 8, 2016 4:03:08 PM"


@extend_schema_field(OpenApiTypes.INT64)
class IdField(serializers.IntegerField):
    """A taskId: a 64-bit integer."""


# --- Requests ----------------------------------------------------------------------------------------


class TaskEnvironmentSerializer(serializers.Serializer[object]):
    """One variable of the environment."""

    name = serializers.CharField()
    value = serializers.CharField(allow_blank=True)


@extend_schema_field(
    {
        "oneOf": [
            {"$ref": "#/components/schemas/TaskEnvironmentRequest"},
            {"type": "array", "items": {"$ref": "#/components/schemas/TaskEnvironmentRequest"}},
        ],
        "description": "One variable or a list of them. What envs says overrides it.",
    }
)
class EnvField(serializers.JSONField):
    """The seed's ``env``: one object; a list of them is accepted too."""


class TaskResourcesSerializer(serializers.Serializer[object]):
    """What the task needs of its node."""

    role = serializers.CharField(required=False, help_text="Accepted, without effect.")
    cpu = serializers.FloatField(required=False, default=1.0, help_text="CPUs, moved into 0.1 to 16.")
    mem = serializers.FloatField(required=False, default=512, help_text="MiB, moved into 256 to 16384.")


class TaskParameterSerializer(serializers.Serializer[object]):
    """An option for the Docker Engine. Needs the policy `parameters`."""

    key = serializers.CharField()
    value = serializers.CharField(allow_blank=True)


class TaskPortMappingSerializer(serializers.Serializer[object]):
    """A port of the container. A hostPort other than 0 needs the policy `host_ports`."""

    containerPort = serializers.IntegerField(min_value=1, max_value=65535)
    hostPort = serializers.IntegerField(min_value=0, max_value=65535, required=False, default=0)
    protocol = serializers.CharField(required=False, default="tcp", help_text="tcp or udp")


class TaskDockerSerializer(serializers.Serializer[object]):
    """What runs on the Docker Engine."""

    image = serializers.CharField()
    forcePullImage = serializers.BooleanField(required=False, default=True)
    privileged = serializers.BooleanField(
        required=False, default=False, help_text="Needs the policy `privileged`."
    )
    net = serializers.CharField(
        required=False,
        default="BRIDGE",
        help_text="BRIDGE, HOST (needs the policy `host_network`), NONE or USER",
    )
    parameters = TaskParameterSerializer(many=True, required=False)
    portMappings = TaskPortMappingSerializer(many=True, required=False)


class TaskVolumeSerializer(serializers.Serializer[object]):
    """A folder of the host. Needs the policy `volumes`."""

    containerPath = serializers.CharField()
    hostPath = serializers.CharField()
    dvo = serializers.CharField(required=False, help_text="RO or RW (default)")
    mode = serializers.CharField(required=False, help_text="The same as dvo, which goes first.")


class TaskContainerSerializer(serializers.Serializer[object]):
    """A container to run."""

    type = serializers.CharField(required=False, default="DOCKER", help_text="DOCKER; MESOS is refused")
    docker = TaskDockerSerializer()
    volumes = TaskVolumeSerializer(many=True, required=False)


class TaskConstraintsSerializer(serializers.Serializer[object]):
    """Where the task may run."""

    field = serializers.CharField(help_text="rack_id or hostname, in any case")
    values = serializers.ListField(child=serializers.CharField(), help_text="The node has one of these.")


class TaskSubmissionSerializer(serializers.Serializer[object]):
    """A task: exactly one of container and commands. Unknown fields are ignored."""

    taskName = serializers.CharField(max_length=255)
    callbackUrl = serializers.CharField(required=False, help_text="http or https")
    resources = TaskResourcesSerializer(required=False)
    container = TaskContainerSerializer(required=False)
    commands = serializers.CharField(required=False, help_text="Runs through /bin/sh.")
    env = EnvField(required=False)
    envs = TaskEnvironmentSerializer(many=True, required=False)
    args = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="The container's arguments; no effect with commands.",
    )
    uris = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="http or https files, fetched into the working directory first.",
    )
    constraints = TaskConstraintsSerializer(required=False)
    priority = serializers.IntegerField(required=False, help_text="1 is high, anything else is normal.")
    retry = serializers.IntegerField(
        required=False, default=0, help_text="Further attempts after a failure, moved into 0 to 100."
    )


# --- Answers -----------------------------------------------------------------------------------------


class TaskErrorSerializer(serializers.Serializer[object]):
    """Every error of this family, whatever its HTTP status."""

    status = serializers.IntegerField(help_text="A negative number that names the kind of error.")
    message = serializers.CharField(help_text="The field, what is wrong with it, and the fix.")


class TaskIdSerializer(serializers.Serializer[object]):
    """The id of an accepted task, below 2^53."""

    taskId = IdField()


class TaskSerializer(serializers.Serializer[object]):
    """A task. Absent values are left out."""

    taskId = IdField()
    taskName = serializers.CharField()
    tenantId = serializers.CharField()
    dockerImage = serializers.CharField(required=False)
    commands = serializers.CharField(required=False)
    taskStatus = serializers.IntegerField(min_value=-1, max_value=12, help_text=STATUS_HELP)
    message = serializers.CharField()
    callbackAt = serializers.CharField(required=False, help_text=DATE_HELP)
    callbackUrl = serializers.CharField(required=False)
    submitAt = serializers.CharField(help_text=DATE_HELP)
    finishAt = serializers.CharField(required=False, help_text=DATE_HELP)
    agentHost = serializers.CharField(required=False, help_text="Where it runs or ran last.")
    retry = serializers.IntegerField(help_text="Further attempts left.")


class TaskKillSerializer(serializers.Serializer[object]):
    """What a kill did."""

    submitKill = serializers.BooleanField(help_text="false when it had ended before")
    submitTask = serializers.BooleanField(help_text="The same as submitKill, for the later SDK.")
    resultMessage = serializers.CharField()
    currentStatus = serializers.IntegerField(min_value=-1, max_value=12, help_text=STATUS_HELP)


class ReconciledTaskSerializer(serializers.Serializer[object]):
    """What a reconcile found about one task."""

    taskId = IdField()
    reconciled = serializers.BooleanField()
    message = serializers.CharField()


class TaskReconcileSerializer(serializers.Serializer[object]):
    """What a reconcile found."""

    request = serializers.IntegerField(help_text="How many ids were asked for.")
    reconcile = serializers.IntegerField(help_text="How many of them are reconciled.")
    reconciles = ReconciledTaskSerializer(many=True)


# --- The envelope around them ------------------------------------------------------------------------


def _answer(name: str, data: serializers.BaseSerializer[object]) -> serializers.Serializer[object]:
    """{"status": 0, "message": "OK", "data": ...}; by name, since a serializer has a ``data`` of its own."""
    fields: dict[str, Any] = {
        "status": serializers.IntegerField(help_text="0"),
        "message": serializers.CharField(help_text="OK"),
        "data": data,
    }
    return inline_serializer(name, fields)


TASK_ID_ANSWER: Final = _answer("TaskIdAnswer", TaskIdSerializer())
TASK_ANSWER: Final = _answer("TaskAnswer", TaskSerializer())
TASKS_ANSWER: Final = _answer("TasksAnswer", TaskSerializer(many=True))
KILL_ANSWER: Final = _answer("TaskKillAnswer", TaskKillSerializer())
RECONCILE_ANSWER: Final = _answer("TaskReconcileAnswer", TaskReconcileSerializer())
EXPLANATION_ANSWER: Final = _answer("TaskExplanationAnswer", ExplanationSerializer())
