"""The documented shape of /api/v1/nodes; ``shapes`` makes the answers."""

from __future__ import annotations

from rest_framework import serializers

from workers.models import Node


class NodeSerializer(serializers.Serializer[object]):
    """A machine on which a worker runs."""

    name = serializers.CharField()
    swarm_node_id = serializers.CharField(allow_null=True)
    state = serializers.ChoiceField(choices=[*Node.Mode.values, "silent"])
    attributes = serializers.DictField(child=serializers.CharField())
    runtimes = serializers.ListField(child=serializers.CharField())
    cpus = serializers.FloatField()
    cpus_free = serializers.FloatField()
    mem_mb = serializers.IntegerField()
    mem_mb_free = serializers.IntegerField()
    running = serializers.IntegerField()
    heartbeat_at = serializers.DateTimeField()
    version = serializers.CharField()
    draining = serializers.BooleanField(help_text="an operator drains it, also while it is silent")
    trouble = serializers.CharField(
        allow_null=True,
        help_text="why it takes no work by itself, and what ended runs left that it cannot remove",
    )
