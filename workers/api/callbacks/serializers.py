"""The documented shapes of /api/v1/callbacks. As ``workers.api.serializers``."""

from __future__ import annotations

from rest_framework import serializers

from workers.api.serializers import OwnerSerializer
from workers.models import Callback


class CallbackAttemptSerializer(serializers.Serializer[object]):
    """One try to deliver."""

    at = serializers.DateTimeField()
    status = serializers.IntegerField(
        allow_null=True, help_text="HTTP status; null where there was no answer"
    )
    error = serializers.CharField(allow_null=True)
    ms = serializers.IntegerField()


class CallbackSerializer(serializers.Serializer[object]):
    """One HTTP notification owed to a client."""

    id = serializers.IntegerField()
    owner = OwnerSerializer()
    event = serializers.CharField(help_text="running (an attempt has started) or ended")
    url = serializers.CharField()
    state = serializers.ChoiceField(choices=Callback.State.choices)
    attempts = CallbackAttemptSerializer(many=True, help_text="the newest 100, oldest first")
    next_at = serializers.DateTimeField(
        allow_null=True,
        help_text="the next try; null also while an earlier one of the same object is undecided",
    )
    tenant = serializers.CharField()
    family = serializers.CharField()
    sequence = serializers.IntegerField(help_text="grows per owner, from 1 on")
    webhook_id = serializers.CharField()
    receiver = serializers.CharField(help_text="scheme://host:port")
    created_at = serializers.DateTimeField()
    delivered_at = serializers.DateTimeField(allow_null=True)


class CallbackDetailSerializer(CallbackSerializer):
    """A callback with its body."""

    body = serializers.CharField(help_text="byte for byte as it is sent")


class ReplayRangeSerializer(serializers.Serializer[object]):
    """Which callbacks to send again, by the time at which they were owed."""

    to = serializers.DateTimeField(help_text="this moment not included")
    state = serializers.ChoiceField(
        choices=["dead", "delivered", "disabled"], required=False, allow_null=True, help_text="dead without"
    )
    url = serializers.CharField(required=False, allow_null=True, max_length=2048)
    family = serializers.CharField(required=False, allow_null=True, max_length=16)

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        since = serializers.DateTimeField(help_text="this moment included")
        return {"from": since, **super().get_fields()}


class ReplayedSerializer(serializers.Serializer[object]):
    """What a replay by range did."""

    replayed = serializers.IntegerField()
    more = serializers.BooleanField(help_text="10,000 were replayed and there may be more: ask again")


class CallbackTestSerializer(serializers.Serializer[object]):
    """Where to send a ping."""

    url = serializers.CharField(max_length=2048)


class CallbackTestedSerializer(serializers.Serializer[object]):
    """What came of it."""

    url = serializers.CharField()
    webhook_id = serializers.CharField()
    delivered = serializers.BooleanField()
    status = serializers.IntegerField(allow_null=True)
    error = serializers.CharField(allow_null=True)
    ms = serializers.IntegerField()


class DisabledUrlSerializer(serializers.Serializer[object]):
    """A URL that answered 410."""

    id = serializers.IntegerField()
    tenant = serializers.CharField()
    url = serializers.CharField()
    at = serializers.DateTimeField()


class CallbackSecretSerializer(serializers.Serializer[object]):
    """A secret that signs callbacks, without its value."""

    id = serializers.IntegerField()
    shown = serializers.BooleanField(help_text="false: made by itself, nobody knows its value")
    created_at = serializers.DateTimeField()
    revoked_at = serializers.DateTimeField(allow_null=True)


class CallbackSecretWithValueSerializer(CallbackSecretSerializer):
    """The only answer that ever shows the value."""

    secret = serializers.CharField(help_text="whsec_...")
