"""The documented shapes of /api/v1/runs. No queries, no create, no update; ``shapes`` makes the answers."""

from __future__ import annotations

from rest_framework import serializers

from workers.api.serializers import OwnerSerializer
from workers.vocabulary.states import Reason, State


class RunSerializer(serializers.Serializer[object]):
    """One unit of work, whatever its family."""

    id = serializers.IntegerField()
    family = serializers.CharField()
    kind = serializers.CharField(help_text="process, container, exec or transfer")
    name = serializers.CharField()
    tenant = serializers.CharField()
    owner = OwnerSerializer()
    state = serializers.ChoiceField(choices=State.choices)
    reason = serializers.ChoiceField(
        choices=Reason.choices, allow_blank=True, help_text="a detail beside the state"
    )
    message = serializers.CharField()
    priority = serializers.IntegerField(help_text="0 to 9, the lower the sooner")
    node = serializers.CharField(allow_null=True)
    attempt = serializers.IntegerField()
    exit_code = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    cancel_requested_at = serializers.DateTimeField(allow_null=True)
    log_pruned = serializers.BooleanField(help_text="retention has deleted what it wrote")
    url = serializers.CharField()


class AttemptSerializer(serializers.Serializer[object]):
    """One try of a run."""

    number = serializers.IntegerField()
    node = serializers.CharField()
    state = serializers.ChoiceField(choices=State.choices)
    reason = serializers.ChoiceField(choices=Reason.choices, allow_blank=True)
    message = serializers.CharField()
    exit_code = serializers.IntegerField(allow_null=True)
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    log_bytes = serializers.IntegerField()
    log_truncated = serializers.BooleanField()
    log_pruned = serializers.BooleanField()
    image_digest = serializers.CharField(allow_null=True, help_text="what its image was resolved to")


class RunEventSerializer(serializers.Serializer[object]):
    """One recorded transition; ``from`` is empty for the first. One with a ``note`` tells what an attempt
    began or did while its state stayed the same."""

    at = serializers.DateTimeField()
    to = serializers.CharField()
    reason = serializers.CharField()
    attempt = serializers.IntegerField()
    by = serializers.CharField()
    note = serializers.CharField()

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        return {**super().get_fields(), "from": serializers.CharField()}


class RunDetailSerializer(RunSerializer):
    """A run with the newest 1,000 of its attempts and events, oldest first."""

    attempts = AttemptSerializer(many=True)
    events = RunEventSerializer(many=True)


class CancelledSerializer(serializers.Serializer[object]):
    """What a cancel found and did."""

    id = serializers.IntegerField()
    state = serializers.ChoiceField(choices=State.choices)
    accepted = serializers.BooleanField(help_text="it will end by this cancel")
    already_final = serializers.BooleanField()
    message = serializers.CharField()


class ExplanationReasonSerializer(serializers.Serializer[object]):
    """One reason why a run is where it is."""

    code = serializers.CharField()
    message = serializers.CharField()
    need = serializers.FloatField(allow_null=True)
    free = serializers.FloatField(allow_null=True)
    quota = serializers.FloatField(allow_null=True)
    blocked_by = serializers.ListField(child=serializers.CharField())
    remedy = serializers.CharField()


class EstimateSerializer(serializers.Serializer[object]):
    """When it may start, in seconds from now."""

    p50_s = serializers.FloatField()
    p90_s = serializers.FloatField()


class ExplanationSerializer(serializers.Serializer[object]):
    """Why a run is where it is, the strongest reason first."""

    state = serializers.ChoiceField(choices=State.choices)
    since = serializers.DateTimeField()
    reasons = ExplanationReasonSerializer(many=True)
    position = serializers.IntegerField(allow_null=True)
    estimate = EstimateSerializer(allow_null=True)
