"""The documented shapes of saved jobs, for the OpenAPI schema.

Requests are read and answers rendered by hand in ``jobs.saved.requests`` and ``jobs.saved.wire``; a test
compares the field names both ways. No queries, no create or update.
"""

from __future__ import annotations

from rest_framework import serializers

from jobs.saved import requests
from jobs.saved.wire import Status
from workers.api.runs.serializers import ExplanationSerializer


class JobErrorSerializer(serializers.Serializer[object]):
    """Every error of this family, whatever its HTTP status."""

    message = serializers.CharField(help_text="A sentence, or the id or name that is meant.")
    id = serializers.CharField(help_text="What kind of error, for programs.")


class JobBodySerializer(serializers.Serializer[object]):
    """A job as it is sent. Unknown fields are ignored, null is the same as absent."""

    AppName = serializers.CharField(max_length=requests.APP_MOST)
    ServiceName = serializers.CharField(max_length=requests.APP_MOST, required=False, allow_blank=True)
    Name = serializers.CharField(max_length=requests.NAME_MOST, help_text="Unique within an AppName.")
    Cmd = serializers.CharField(
        max_length=requests.CMD_MOST, help_text="Split as a shell splits words; no shell is started."
    )
    Privileged = serializers.BooleanField(
        required=False, help_text="A start needs the policy `exec_privileged`."
    )
    User = serializers.CharField(
        max_length=requests.NAME_MOST,
        required=False,
        allow_blank=True,
        help_text="name[:group] or uid[:gid]; empty: the container's own",
    )
    Env = serializers.ListField(child=serializers.CharField(), required=False, help_text="NAME=value")
    SecretArgs = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        allow_null=True,
        help_text="Further arguments, in clear. In a PUT: absent keeps, [] clears, asterisks keep that one.",
    )


class JobSerializer(serializers.Serializer[object]):
    """A saved job; every field is always there."""

    JobId = serializers.UUIDField()
    AppName = serializers.CharField()
    ServiceName = serializers.CharField()
    Name = serializers.CharField()
    Cmd = serializers.CharField()
    Privileged = serializers.BooleanField()
    User = serializers.CharField()
    Env = serializers.ListField(child=serializers.CharField())
    SecretArgs = serializers.ListField(
        child=serializers.CharField(), help_text="An asterisk for each character of each secret."
    )
    Executors = serializers.ListField(
        child=serializers.CharField(), help_text="Ids of its starts, oldest first: whole seconds since 1970."
    )


class JobTargetSerializer(serializers.Serializer[object]):
    """A container to start in, and the node that it runs on."""

    ContainerId = serializers.CharField(help_text="Full id, unique prefix or name.")
    NodeId = serializers.CharField(help_text="Swarm node id where the engine is in a swarm, else its name.")


class JobStartSerializer(serializers.Serializer[object]):
    """Where to start."""

    Target = JobTargetSerializer(
        many=True,
        required=False,
        help_text="Left out (ours): every running container of ServiceName, or labelled app=AppName.",
    )


class JobProcessSerializer(serializers.Serializer[object]):
    """What was executed; secrets as asterisks."""

    user = serializers.CharField()
    tty = serializers.BooleanField()
    entrypoint = serializers.CharField()
    arguments = serializers.ListField(child=serializers.CharField())
    privileged = serializers.BooleanField()


class JobResultSerializer(serializers.Serializer[object]):
    """What came of one target. The fields from ExitCode on are there when it is FINISHED, only then."""

    NodeId = serializers.CharField()
    ContainerId = serializers.CharField(help_text="As sent.")
    Status = serializers.ChoiceField(choices=[str(item) for item in Status])
    JobName = serializers.CharField()
    StartTime = serializers.FloatField(help_text="Seconds since 1970; 0 until known.")
    EndTime = serializers.FloatField(help_text="Seconds since 1970; 0 until known.")
    ID = serializers.CharField(required=False, help_text="Of the exec, once it is created.")
    E = serializers.CharField(
        required=False, help_text="Why it failed, for CREATE_FAILED and RUNNING_FAILED."
    )
    ExitCode = serializers.IntegerField(required=False)
    Pid = serializers.IntegerField(required=False)
    Running = serializers.BooleanField(required=False)
    CanRemove = serializers.BooleanField(required=False)
    OpenStdin = serializers.BooleanField(required=False)
    OpenStdout = serializers.BooleanField(required=False)
    OpenStderr = serializers.BooleanField(required=False)
    DetachKeys = serializers.CharField(required=False)
    ContainerID = serializers.CharField(required=False, help_text="The full id.")
    ProcessConfig = JobProcessSerializer(required=False)
    Output = serializers.CharField(
        required=False, help_text="stdout and stderr in order, the last 64 KiB; all of it: log."
    )


class JobExecutorSerializer(serializers.Serializer[object]):
    """One start of a job. Result has the order of Target."""

    JobId = serializers.UUIDField()
    CreateTime = serializers.FloatField(help_text="Seconds since 1970; its whole part is the executor's id.")
    Target = JobTargetSerializer(many=True)
    Result = JobResultSerializer(many=True)


class JobWhySerializer(serializers.Serializer[object]):
    """Why one target is where it is; Explanation is null when it has ended."""

    NodeId = serializers.CharField()
    ContainerId = serializers.CharField()
    Status = serializers.ChoiceField(choices=[str(item) for item in Status])
    Explanation = ExplanationSerializer(allow_null=True)


class JobExplanationSerializer(serializers.Serializer[object]):
    """Why each target of an executor is where it is."""

    JobId = serializers.UUIDField()
    CreateTime = serializers.FloatField()
    Result = JobWhySerializer(many=True)
