"""The documented shapes of the pull workers' calls, and the check of what they ask for."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class PulledElementSerializer(serializers.Serializer[Any]):
    """An element that was handed out. Enums are integers."""

    id = serializers.IntegerField()
    job_id = serializers.IntegerField()
    src_filepath = serializers.CharField()
    dst_filepath = serializers.CharField(allow_null=True)
    size = serializers.IntegerField(allow_null=True)
    max_tries = serializers.IntegerField()
    attempts = serializers.IntegerField()
    type = serializers.IntegerField()
    status = serializers.IntegerField()
    timestamp = serializers.CharField()
    listing = serializers.JSONField(allow_null=True)
    monitoring_info = serializers.JSONField(allow_null=True)
    token = serializers.CharField(help_text="authorises the element's reports, as X-Token")


class PulledJobSerializer(serializers.Serializer[Any]):
    """A job with elements for a pull worker. Enums are integers, every key is there."""

    id = serializers.IntegerField()
    user_id = serializers.IntegerField(allow_null=True)
    src_siteid = serializers.IntegerField()
    dst_siteid = serializers.IntegerField(allow_null=True)
    src_filepath = serializers.CharField()
    dst_filepath = serializers.CharField(allow_null=True)
    type = serializers.IntegerField()
    status = serializers.IntegerField()
    extra_opts = serializers.JSONField()
    priority = serializers.IntegerField()
    protocol = serializers.IntegerField()
    log_uid = serializers.CharField()
    timestamp = serializers.CharField()
    src_credentials = serializers.CharField(allow_blank=True)
    dst_credentials = serializers.CharField(allow_blank=True)
    elements = PulledElementSerializer(many=True)


class PullSerializer(serializers.Serializer[Any]):
    """What a worker asks for; ``algorithm.args`` is {limit} or {size}."""

    types = serializers.ListField(child=serializers.IntegerField(min_value=0, max_value=4))
    algorithm = serializers.CharField(required=False, help_text="BY_NUMBER or BY_SIZE, in any letter case")

    def get_fields(self) -> Any:
        """A name that no attribute can have."""
        return {**super().get_fields(), "algorithm.args": serializers.JSONField(required=False)}


class ReportSerializer(serializers.Serializer[Any]):
    """How an attempt ended. ``listing`` of a LIST with returncode 0: {directory: [{name, st_mode...}]}."""

    returncode = serializers.IntegerField()
    host = serializers.JSONField(help_text="any JSON, kept as text")
    log = serializers.CharField(allow_blank=True)
    timestamp = serializers.CharField()
    listing = serializers.JSONField(required=False)


class MonitoringSerializer(serializers.Serializer[Any]):
    """How far an attempt is."""

    transferred = serializers.IntegerField(help_text="bytes; -1 = the whole file")
    elapsed = serializers.FloatField(help_text="seconds")
    instant = serializers.FloatField(help_text="bytes per second")
    average = serializers.FloatField(required=False, help_text="bytes per second; computed here")


class EndpointsSerializer(serializers.Serializer[Any]):
    """Where a site is, for pull workers."""

    endpoints = serializers.ListField(child=serializers.CharField(), help_text="host:port")
    cas = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="PEM; absent: the system's"
    )
