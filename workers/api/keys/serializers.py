"""The documented shape of /api/v1/keys."""

from __future__ import annotations

from rest_framework import serializers


class SigningKeySerializer(serializers.Serializer[object]):
    """A key of the tenant that signs receipts (Ed25519)."""

    id = serializers.CharField(help_text="names the key in what it signed")
    algorithm = serializers.CharField()
    public_key = serializers.CharField(help_text="32 bytes in base64")
    created_at = serializers.DateTimeField()
    retired_at = serializers.DateTimeField(allow_null=True, help_text="null: in use")
