"""The documented shapes of /api/v1/registries, and the check of what is sent."""

from __future__ import annotations

from rest_framework import serializers


class RegistrySerializer(serializers.Serializer[object]):
    """What the tenant shows a private registry; nothing shows the password again."""

    registry = serializers.CharField(help_text="host or host:port; Docker Hub is docker.io")
    username = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class RegistryChangeSerializer(serializers.Serializer[object]):
    """Credentials to be stored, in the place of earlier ones."""

    username = serializers.CharField(max_length=255)
    password = serializers.CharField(max_length=16 * 1024, write_only=True, trim_whitespace=False)
