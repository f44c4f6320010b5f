"""The documented shapes of the queues family, for the OpenAPI schema.

Requests are read and answers rendered by hand in ``wire``; a test compares the field names both ways.
No queries, no create or update.
"""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field, inline_serializer
from rest_framework import serializers

from queues.entries import wire
from workers.api.runs.serializers import ExplanationReasonSerializer

STATUSES: Final = ["queued", "running", "finished", "cancelled", "failed"]
CALLBACK_STATES: Final = ["undeliverable", "due", "delivered", "dead"]
NAME: Final = r"^[A-Za-z0-9._~-]{1,128}$"


@extend_schema_field(OpenApiTypes.INT64)
class LongField(serializers.IntegerField):
    """A 64-bit integer."""


# --- Requests ----------------------------------------------------------------------------------------


class QueueSubmissionSerializer(serializers.Serializer[object]):
    """A request for resources. Unknown fields are ignored."""

    request_id = serializers.RegexField(
        NAME, help_text="Yours; unique in the queue, also after its end. Not . or .. alone."
    )
    owner_id = serializers.CharField(max_length=wire.OWNER_MOST, help_text="In OpenStack the project's id.")
    callback = serializers.CharField(
        max_length=wire.CALLBACK_MOST,
        help_text="Called on admission. Unique among what is queued and running in the queue.",
    )

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        # A serializer has a ``data`` of its own.
        help_text = 'By type. vm: {"instances": [{"VCPU": n, "Memory": MB, "Disk": GB}], "project": id}.'
        fields = super().get_fields()
        fields["data"] = serializers.DictField(help_text=help_text)
        return fields


class QueueMoveSerializer(serializers.Serializer[object]):
    """Where a queued request shall go: exactly one of the three."""

    priority = serializers.FloatField(
        required=False, help_text="Within +-(2^53-1), rounded down; on a taken number behind who has it."
    )
    before = serializers.CharField(required=False, help_text="Directly before this request_id (ours).")
    after = serializers.CharField(required=False, help_text="Directly behind this request_id (ours).")


# --- Answers -----------------------------------------------------------------------------------------


class QueueEntrySerializer(serializers.Serializer[object]):
    """A request in its queue; the last two fields are ours."""

    ID = LongField()
    CreatedAt = serializers.DateTimeField()
    UpdatedAt = serializers.DateTimeField()
    DeletedAt = serializers.DateTimeField(allow_null=True, help_text="When it was withdrawn or ended.")
    RequestID = serializers.CharField()
    Type = serializers.CharField()
    OwnerID = serializers.CharField()
    Data = serializers.CharField(help_text="JSON text, keys sorted; with host_aggregate once admitted.")
    Callback = serializers.CharField()
    Priority = LongField(help_text="The smallest is first.")
    Status = serializers.ChoiceField(choices=STATUSES)
    CallbackState = serializers.ChoiceField(
        choices=CALLBACK_STATES, allow_null=True, help_text="null: withdrawn, nothing was owed."
    )
    CallbackError = serializers.CharField(allow_null=True, help_text="What went wrong last.")


class QueueNothingSerializer(serializers.Serializer[object]):
    """An empty object."""


class QueueEstimateSerializer(serializers.Serializer[object]):
    """When it may be admitted, in seconds from now, or why nobody knows."""

    p50_s = serializers.FloatField(required=False)
    p90_s = serializers.FloatField(required=False, help_text="nine in ten do not wait longer")
    method = serializers.CharField(required=False, help_text="forward, forward_in_part or past_waits")
    samples = serializers.IntegerField(required=False, help_text="ended entries that it is made from")
    unknown = serializers.CharField(required=False)


class QueueReasonSerializer(ExplanationReasonSerializer):
    """A reason; conditions: how much of what there is meets each need; suggestions: what would help."""

    level = serializers.CharField(required=False)
    conditions = serializers.ListField(child=serializers.DictField(), required=False)
    suggestions = serializers.ListField(child=serializers.DictField(), required=False)


class QueueBoundSerializer(serializers.Serializer[object]):
    """Best effort, of the head: within how many seconds it starts, or why nobody knows."""

    aggregate = serializers.CharField(help_text="Kept for it: nobody else takes what becomes free there.")
    bound_s = serializers.FloatField(
        required=False, help_text="If what runs there ends within the duration that it declared."
    )
    unknown = serializers.CharField(required=False)


class QueueExplanationSerializer(serializers.Serializer[object]):
    """Why a request is where it is, the strongest reason first."""

    state = serializers.ChoiceField(choices=STATUSES)
    since = serializers.DateTimeField()
    reasons = QueueReasonSerializer(many=True)
    position = serializers.IntegerField(
        allow_null=True, help_text="Among its tenant's entries, from 1 on; null: far behind, or not queued."
    )
    estimate = QueueEstimateSerializer(allow_null=True)
    approximate = serializers.BooleanField(required=False)
    ahead = serializers.DictField(required=False, help_text="Who is before it, and how many.")
    reserved = serializers.DictField(required=False, allow_null=True, help_text="What is kept free for it.")
    bound = QueueBoundSerializer(required=False, allow_null=True)
    running = serializers.DictField(required=False, help_text="Who holds what it waits for.")


class QueueErrorBodySerializer(serializers.Serializer[object]):
    """What is wrong."""

    id = serializers.CharField(help_text="Stable, for programs.")
    message = serializers.CharField(help_text="For people: the field, what is wrong with it, and the fix.")


class QueueErrorSerializer(serializers.Serializer[object]):
    """Every error of this family, whatever its HTTP status."""

    ok = serializers.BooleanField(help_text="false")
    error = QueueErrorBodySerializer()


def _answer(name: str, data: serializers.BaseSerializer[object]) -> serializers.Serializer[object]:
    """{"data": ..., "ok": true}; by name, since a serializer has a ``data`` of its own."""
    fields: dict[str, Any] = {"data": data, "ok": serializers.BooleanField(help_text="true")}
    return inline_serializer(name, fields)


ENTRY_ANSWER: Final = _answer("QueueEntryAnswer", QueueEntrySerializer())
ENTRIES_ANSWER: Final = _answer("QueueEntriesAnswer", QueueEntrySerializer(many=True))
NOTHING_ANSWER: Final = _answer("QueueNothingAnswer", QueueNothingSerializer())
EXPLANATION_ANSWER: Final = _answer("QueueExplanationAnswer", QueueExplanationSerializer())
