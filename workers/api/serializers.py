"""The documented shapes of /api/v1, and the checks of what operators send. No queries, no create, no update.

``workers.api.shapes`` makes the answers; a test compares its keys with these.
"""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from workers.models import Node
from workers.tenants.identity import SCOPES
from workers.vocabulary.states import Reason, State


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
    image_digest = serializers.CharField(allow_null=True, help_text="what its image was resolved to")


class RunEventSerializer(serializers.Serializer[object]):
    """One recorded transition; ``from`` is empty for the first."""

    at = serializers.DateTimeField()
    to = serializers.CharField()
    reason = serializers.CharField()
    attempt = serializers.IntegerField()
    by = serializers.CharField()

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
    trouble = serializers.CharField(allow_null=True, help_text="why it takes no work by itself")


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


class AuditEntrySerializer(serializers.Serializer[object]):
    """A changing call: who, what, and how it was answered."""

    id = serializers.IntegerField()
    at = serializers.DateTimeField()
    user = serializers.CharField(help_text="empty when nobody was known")
    token_prefix = serializers.CharField()
    via = serializers.CharField(help_text="token, basic, session or network")
    peer = serializers.CharField(help_text="the address that it came from")
    tenant = serializers.CharField()
    method = serializers.CharField()
    route = serializers.CharField(help_text="with its placeholders")
    objects = serializers.DictField(help_text="names and ids of what it was about")
    status = serializers.IntegerField()
    request_id = serializers.CharField(help_text="X-Request-Id of the answer")


class EndedRunsSerializer(serializers.Serializer[object]):
    """Runs by their final state."""

    succeeded = serializers.IntegerField()
    failed = serializers.IntegerField()
    cancelled = serializers.IntegerField()


class EndedCallbacksSerializer(serializers.Serializer[object]):
    """How many callbacks were delivered and given up."""

    delivered = serializers.IntegerField()
    dead = serializers.IntegerField()


class UsageSerializer(serializers.Serializer[object]):
    """A tenant's use by one family: what ended in these days (UTC)."""

    tenant = serializers.CharField()
    family = serializers.CharField()
    runs = EndedRunsSerializer()
    attempts = serializers.IntegerField()
    cpu_s = serializers.FloatField(help_text="reserved CPUs times seconds")
    mem_mb_s = serializers.IntegerField(help_text="reserved MiB times seconds")
    log_bytes = serializers.IntegerField()
    callbacks = EndedCallbacksSerializer()


class UsedSerializer(serializers.Serializer[object]):
    """What is in use of a limit."""

    used = serializers.IntegerField()
    limit = serializers.IntegerField(allow_null=True, help_text="null = no limit")


class RateSerializer(serializers.Serializer[object]):
    """A limit of a rate; X-RateLimit-Remaining of each answer says what is left."""

    limit = serializers.IntegerField(allow_null=True, help_text="null = no limit")


class StandingSerializer(serializers.Serializer[object]):
    """What the tenant has of what it may have."""

    waiting_runs = UsedSerializer()
    running_runs = UsedSerializer()
    requests_per_s = RateSerializer()
