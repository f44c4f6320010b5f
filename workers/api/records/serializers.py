"""The documented shapes of /api/v1/limits, /usage and /audit; ``shapes`` makes the answers."""

from __future__ import annotations

from rest_framework import serializers


class AuditEntrySerializer(serializers.Serializer[object]):
    """A changing call: who, what, and how it was answered."""

    id = serializers.IntegerField()
    at = serializers.DateTimeField()
    user = serializers.CharField(help_text="empty when nobody was known")
    token_prefix = serializers.CharField()
    via = serializers.CharField(help_text="token, basic, session or network")
    peer = serializers.CharField(help_text="the address that it came from")
    tenant = serializers.CharField()
    method = serializers.CharField()
    route = serializers.CharField(help_text="with its placeholders")
    objects = serializers.DictField(help_text="names and ids of what it was about")
    status = serializers.IntegerField(
        help_text="of the answer; 0: it changed something, and its process ended before it answered"
    )
    request_id = serializers.CharField(help_text="X-Request-Id of the answer")


class EndedRunsSerializer(serializers.Serializer[object]):
    """Runs by their final state."""

    succeeded = serializers.IntegerField()
    failed = serializers.IntegerField()
    cancelled = serializers.IntegerField()


class EndedCallbacksSerializer(serializers.Serializer[object]):
    """How many callbacks were delivered and given up."""

    delivered = serializers.IntegerField()
    dead = serializers.IntegerField()


class UsageSerializer(serializers.Serializer[object]):
    """A tenant's use by one family: what ended in these days (UTC)."""

    tenant = serializers.CharField()
    family = serializers.CharField()
    runs = EndedRunsSerializer()
    attempts = serializers.IntegerField()
    cpu_s = serializers.FloatField(help_text="reserved CPUs times seconds")
    mem_mb_s = serializers.IntegerField(help_text="reserved MiB times seconds")
    log_bytes = serializers.IntegerField()
    callbacks = EndedCallbacksSerializer()


class UsedSerializer(serializers.Serializer[object]):
    """What is in use of a limit."""

    used = serializers.IntegerField()
    limit = serializers.IntegerField(allow_null=True, help_text="null = no limit")


class RateSerializer(serializers.Serializer[object]):
    """A limit of a rate; X-RateLimit-Remaining of each answer says what is left."""

    limit = serializers.IntegerField(allow_null=True, help_text="null = no limit")


class StandingSerializer(serializers.Serializer[object]):
    """What the tenant has of what it may have."""

    waiting_runs = UsedSerializer()
    running_runs = UsedSerializer()
    requests_per_s = RateSerializer()
