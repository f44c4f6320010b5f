"""What the documented shapes of /api/v1 share: errors, owners. Each subject's own are in its folder.

Their ``shapes`` make the answers; a test compares the keys.
"""

from __future__ import annotations

from rest_framework import serializers


class ErrorBodySerializer(serializers.Serializer[object]):
    """What is wrong."""

    code = serializers.CharField(help_text="stable, for programs")
    message = serializers.CharField(help_text="for people: what is wrong and what to do")
    field = serializers.CharField(required=False, help_text="the input that is wrong")


class ErrorSerializer(serializers.Serializer[object]):
    """Every error outside the families."""

    error = ErrorBodySerializer()


class OwnerSerializer(serializers.Serializer[object]):
    """What a run belongs to in its family's own words."""

    id = serializers.CharField()
    url = serializers.CharField(allow_null=True)
