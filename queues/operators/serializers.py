"""The documented shapes of /api/v1/queues. ``parsing`` checks what is sent, ``shapes`` makes the answers."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from queues.models import TypePolicy
from queues.operators.parsing import LONGEST, MOST_HOSTS

_AMOUNT: Final = {
    "oneOf": [{"type": "number", "minimum": 0}, {"type": "string", "example": "500m"}],
    "nullable": True,
}
#: {resource: amount} as it is sent.
AMOUNTS: Final[dict[str, Any]] = {"type": "object", "additionalProperties": _AMOUNT}
_NAME: Final[dict[str, Any]] = {"type": "string", "minLength": 1, "maxLength": LONGEST}


@extend_schema_field({"type": "object", "additionalProperties": {"type": "number"}})
class AmountsField(serializers.DictField):
    """{resource: amount} in answers."""


@extend_schema_field(
    {"type": "object", "properties": {"name": _NAME}, "required": ["name"], "additionalProperties": _AMOUNT}
)
class HostField(serializers.DictField):
    """A host: its name, and amounts by resource."""


@extend_schema_field(
    {
        "type": "object",
        "properties": {"name": _NAME},
        "required": ["name"],
        "additionalProperties": {"type": "number"},
    }
)
class DeclaredHostField(serializers.DictField):
    """A host in answers."""


class PoolChangeSerializer(serializers.Serializer[object]):
    """An aggregate to be declared, in the place of what was declared of it before."""

    aggregate = serializers.CharField(max_length=LONGEST)
    hosts = serializers.ListField(child=HostField(), max_length=MOST_HOSTS)
    tenants = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        allow_null=True,
        help_text="names of those who may use it; none = every tenant",
    )


class PoolSerializer(serializers.Serializer[object]):
    """An aggregate as it is declared; a POST takes it again."""

    type = serializers.CharField()
    aggregate = serializers.CharField()
    tenants = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="absent = every tenant may use it"
    )
    hosts = serializers.ListField(child=DeclaredHostField())


class PolicySerializer(serializers.Serializer[object]):
    """How a type is admitted, and where its capacity comes from."""

    type = serializers.CharField()
    mode = serializers.ChoiceField(choices=TypePolicy.Mode.choices)
    provider = serializers.CharField(help_text="pools: what POST .../pools declares")


class PolicyChangeSerializer(serializers.Serializer[object]):
    """What is not named stays as it is."""

    mode = serializers.ChoiceField(choices=TypePolicy.Mode.choices, required=False)
    provider = serializers.CharField(required=False)


class QuotaSerializer(serializers.Serializer[object]):
    """What an owner's running entries may hold together, and what they hold."""

    type = serializers.CharField()
    owner_id = serializers.CharField()
    quota = AmountsField(help_text="a resource that is not named has no quota")
    held = AmountsField()


class HostUseSerializer(serializers.Serializer[object]):
    """What a host has, and what of it is used."""

    name = serializers.CharField()
    removed = serializers.BooleanField(
        required=False, help_text="true: it is not declared any more, but still held in part"
    )
    total = AmountsField()
    used = AmountsField(help_text="by running entries, and by others as the provider says")
    free = AmountsField(help_text="never below 0")
    over = AmountsField(required=False, help_text="what is used beyond the total, where something is")


class AggregateUseSerializer(serializers.Serializer[object]):
    """An aggregate with its hosts."""

    name = serializers.CharField()
    tenants = serializers.ListField(child=serializers.CharField(), required=False)
    removed = serializers.BooleanField(required=False)
    hosts = HostUseSerializer(many=True)


class CapacitySerializer(serializers.Serializer[object]):
    """What there is of a type. Counts are of the tenant's entries, for operators of everybody's."""

    type = serializers.CharField()
    provider = serializers.CharField()
    mode = serializers.ChoiceField(choices=TypePolicy.Mode.choices)
    as_of = serializers.DateTimeField(allow_null=True, help_text="null: the provider has said nothing yet")
    trouble = serializers.CharField(allow_null=True, help_text="why nothing can be told of it now")
    aggregates = AggregateUseSerializer(many=True)
    waiting = serializers.IntegerField()
    running = serializers.IntegerField()
    estimate = serializers.DictField(allow_null=True)


class SimulatedMoveSerializer(serializers.Serializer[object]):
    """A move: one of priority, before and after."""

    request_id = serializers.CharField()
    priority = serializers.IntegerField(required=False)
    before = serializers.CharField(required=False)
    after = serializers.CharField(required=False)


class SimulationSerializer(serializers.Serializer[object]):
    """What is to be tried; at most 100 of each."""

    submit = serializers.ListField(
        child=serializers.DictField(),
        required=False,
        help_text="as submitted; request_id and callback may be left out",
    )
    move = SimulatedMoveSerializer(many=True, required=False)
    withdraw = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="queued or running ones"
    )
    quotas = serializers.DictField(required=False, help_text="owner_id -> {resource: amount, or null}")
    hosts = serializers.ListField(
        child=serializers.DictField(), required=False, help_text="one more host each: aggregate and amounts"
    )


class SimulatedEntrySerializer(serializers.Serializer[object]):
    """Where an entry would stand."""

    request_id = serializers.CharField()
    position = serializers.IntegerField()
    estimate = serializers.DictField()


class SimulatedSerializer(serializers.Serializer[object]):
    """What would be. Named entries first, then the first ones of the queue, 100 in all."""

    runs_now = serializers.ListField(child=serializers.CharField())
    entries = SimulatedEntrySerializer(many=True)
    approximate = serializers.BooleanField(help_text="more waits than was looked at")
