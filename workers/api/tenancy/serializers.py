"""The documented shapes of tenants, users, members and tokens, and the checks of what operators send.

No queries, no create, no update; ``shapes`` makes the answers.
"""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from workers.tenants.identity import SCOPES


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": {
            "oneOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}}]
        },
    }
)
class PolicyField(serializers.DictField):
    """A tenant's policy: true, false or a list of texts by key; ``workers.tenants.policy`` checks them."""


class LimitsSerializer(serializers.Serializer[object]):
    """Other limits than the installation's; 0 = no limit."""

    waiting_runs = serializers.IntegerField(required=False, min_value=0, max_value=1_000_000_000)
    running_runs = serializers.IntegerField(required=False, min_value=0, max_value=1_000_000_000)
    requests_per_s = serializers.IntegerField(required=False, min_value=0, max_value=1_000_000_000)


class DaysSerializer(serializers.Serializer[object]):
    """Days that ended runs and their output are kept; 0 = for ever."""

    runs_d = serializers.IntegerField(required=False, min_value=0, max_value=36_500)
    logs_d = serializers.IntegerField(required=False, min_value=0, max_value=36_500)


class RetentionSerializer(DaysSerializer):
    """Other times than the installation's, also by family."""

    families = serializers.DictField(child=DaysSerializer(), required=False)


class TenantSerializer(serializers.Serializer[object]):
    """The owner of work."""

    name = serializers.CharField()
    title = serializers.CharField()
    active = serializers.BooleanField()
    trusted_with_worker_account = serializers.BooleanField()
    policy = PolicyField()
    limits = LimitsSerializer()
    retention = RetentionSerializer()
    created_at = serializers.DateTimeField()


class NewTenantSerializer(serializers.Serializer[object]):
    """A tenant to be."""

    name = serializers.CharField(max_length=64)
    title = serializers.CharField(max_length=255, required=False, allow_blank=True, allow_null=True)
    policy = PolicyField(required=False, allow_null=True)
    limits = serializers.JSONField(required=False, allow_null=True)
    retention = serializers.JSONField(required=False, allow_null=True)


class TenantChangeSerializer(serializers.Serializer[object]):
    """What is given is changed; of policy, limits and retention each key by itself, null takes one back."""

    title = serializers.CharField(max_length=255, required=False, allow_blank=True, allow_null=True)
    active = serializers.BooleanField(required=False, allow_null=True)
    policy = PolicyField(required=False, allow_null=True)
    limits = serializers.JSONField(required=False, allow_null=True)
    retention = serializers.JSONField(required=False, allow_null=True)


class MembershipSerializer(serializers.Serializer[object]):
    """A tenant of a user."""

    name = serializers.CharField()
    default = serializers.BooleanField()


class UserSerializer(serializers.Serializer[object]):
    """Somebody who presents tokens."""

    name = serializers.CharField()
    email = serializers.CharField()
    active = serializers.BooleanField()
    superuser = serializers.BooleanField()
    tenants = MembershipSerializer(many=True)
    created_at = serializers.DateTimeField()


class NewUserSerializer(serializers.Serializer[object]):
    """A user to be. The first tenant named is the default one. A password is for the admin's pages only."""

    name = serializers.CharField(max_length=150)
    email = serializers.EmailField(required=False, allow_blank=True, allow_null=True)
    password = serializers.CharField(required=False, allow_null=True, write_only=True, max_length=1000)
    superuser = serializers.BooleanField(required=False, allow_null=True)
    tenants = serializers.ListField(
        child=serializers.CharField(max_length=64), required=False, allow_null=True, max_length=100
    )


class UserChangeSerializer(serializers.Serializer[object]):
    """What is given is changed."""

    active = serializers.BooleanField(required=False, allow_null=True)


class MemberSerializer(serializers.Serializer[object]):
    """A user of a tenant."""

    user = serializers.CharField()
    default = serializers.BooleanField(help_text="this is the user's default tenant")


class MemberChangeSerializer(serializers.Serializer[object]):
    """How the user belongs to the tenant."""

    default = serializers.BooleanField(required=False, allow_null=True)


class TokenSerializer(serializers.Serializer[object]):
    """A credential, without its value."""

    id = serializers.IntegerField()
    user = serializers.CharField()
    name = serializers.CharField()
    prefix = serializers.CharField()
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=SCOPES))
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)


class TokenWithValueSerializer(TokenSerializer):
    """The only answer that ever shows the token itself."""

    token = serializers.CharField()


class NewTokenSerializer(serializers.Serializer[object]):
    """A token to be: one's own, or another user's by an operator."""

    name = serializers.CharField(max_length=128)
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=SCOPES), min_length=1, max_length=20)
    expires_in_s = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=100 * 366 * 86_400,
        help_text="seconds; no end without",
    )
    user = serializers.CharField(required=False, allow_null=True, max_length=150)


class MeSerializer(serializers.Serializer[object]):
    """Who the presented credentials are."""

    user = serializers.CharField()
    tenant = serializers.CharField()
    tenants = serializers.ListField(child=serializers.CharField())
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=SCOPES))
    via = serializers.ChoiceField(choices=["token", "basic", "session", "network"])
