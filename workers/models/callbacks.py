"""Callbacks: notifications owed to clients, their attempts, and who receives and delivers them.

Rows are made by ``workers.callbacks.outbox`` in the transaction that owes them, and delivered by
``workers.callbacks``.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from workers.models.runs import Run
from workers.models.secrets import Secret
from workers.models.tenancy import Tenant


class Callback(models.Model):
    """One HTTP notification owed to a client. The body is rendered once and sent byte for byte.

    Waits for its turn while ``next_at`` is null: an earlier one of the same object has not been decided yet.
    """

    class State(models.TextChoices):
        """Where a callback stands. Each line says who moves it on."""

        DUE = "due", "Due"  # the deliverer sends it, again and again
        DELIVERED = "delivered", "Delivered"  # a 2xx; final, an operator may replay it
        DEAD = "dead", "Dead"  # given up after GANTRY_CALLBACK_GIVE_UP_S; an operator may replay it
        DISABLED = (
            "disabled",
            "Disabled",
        )  # the receiver said 410; a tenant enables the URL, then it is replayed

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    family = models.CharField(max_length=16)
    #: What it is about: "run" and the run's id, or a family's own object.
    owner_kind = models.CharField(max_length=16)
    owner_id = models.CharField(max_length=64)
    run = models.ForeignKey(
        Run, null=True, on_delete=models.CASCADE, related_name="callbacks", db_index=False
    )
    #: Grows within one owner: the order in which its callbacks are sent.
    sequence = models.IntegerField()
    event = models.CharField(max_length=32)
    #: The webhook-id, the same on every attempt.
    message_id = models.CharField(max_length=64, unique=True)
    url = models.TextField()
    #: scheme://host:port of the URL.
    receiver = models.CharField(max_length=300)
    body = models.TextField()
    state = models.CharField(max_length=10, choices=State.choices, db_default=State.DUE)
    attempts_made = models.IntegerField(db_default=0)
    next_at = models.DateTimeField(null=True)
    #: The last answer was a refusal that time does not mend: later ones of the same owner do not wait for it.
    yields = models.BooleanField(db_default=False)
    #: Since when it is being tried; a replay begins anew.
    due_since = models.DateTimeField(db_default=Now())
    created_at = models.DateTimeField(db_default=Now())
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner_kind", "owner_id", "sequence"], name="callback_order"),
            models.CheckConstraint(
                condition=Q(state__in=["dead", "delivered", "disabled", "due"]), name="callback_state_known"
            ),
            models.CheckConstraint(
                condition=Q(state="due") | Q(next_at__isnull=True), name="callback_next_only_while_due"
            ),
        ]
        indexes = [
            models.Index(
                fields=["tenant", "receiver", "next_at"],
                condition=Q(state="due", next_at__isnull=False),
                name="callback_due",
            ),
            models.Index(fields=["id"], condition=Q(state="due", next_at=None), name="callback_waiting"),
            models.Index(fields=["tenant", "id"], name="callback_of_tenant"),
            models.Index(fields=["tenant", "id"], condition=Q(state="dead"), name="callback_dead"),
            models.Index(fields=["run"], condition=Q(run__isnull=False), name="callback_of_run"),
        ]

    def __str__(self) -> str:
        return f"callback {self.pk} {self.event}"


class CallbackAttempt(models.Model):
    """One try to deliver a callback. ``status`` is the HTTP status, null where there was no answer."""

    callback = models.ForeignKey(Callback, on_delete=models.CASCADE, related_name="attempts")
    at = models.DateTimeField(db_default=Now())
    status = models.SmallIntegerField(null=True)
    error = models.CharField(max_length=500, blank=True, default="")
    ms = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.status or self.error}"


class CallbackReceiver(models.Model):
    """A host and port to which a tenant's callbacks go: the unit that a deliverer leases.

    One lease, one connection: a receiver is served by one thread at a time, whatever waits for it.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    address = models.CharField(max_length=300)
    #: It has timed out lately: served in the slow lane.
    slow = models.BooleanField(db_default=False)
    #: The last thing it did was to accept: served apart from those of which nothing good is known.
    proven = models.BooleanField(db_default=False)
    #: Failures to connect or to answer in time, in a row.
    failures = models.IntegerField(db_default=0)
    #: Not asked again before this.
    rests_until = models.DateTimeField(null=True)
    lease_epoch = models.IntegerField(db_default=0)
    lease_until = models.DateTimeField(null=True)
    holder = models.CharField(max_length=128, db_default="")
    used_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "address"], name="receiver_once")]

    def __str__(self) -> str:
        return self.address


class DisabledUrl(models.Model):
    """A URL that answered 410: nothing more goes there until the tenant enables it again."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    url = models.TextField()
    #: SHA-256 of the URL, in hexadecimal: a long URL does not fit into an index.
    digest = models.CharField(max_length=64)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "digest"], name="disabled_url_once")]

    def __str__(self) -> str:
        return f"disabled URL {self.pk}"


class CallbackSecret(models.Model):
    """A secret that signs a tenant's callbacks; the value is in ``Secret``, encrypted."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    secret = models.OneToOneField(Secret, null=True, on_delete=models.SET_NULL)
    #: False for one that was made because something had to be signed: nobody knows its value.
    shown = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())
    revoked_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"callback secret {self.pk} of {self.tenant_id}"


class Deliverer(models.Model):
    """A process that delivers callbacks: its heartbeat and what it has done."""

    name = models.CharField(max_length=128, unique=True)
    heartbeat_at = models.DateTimeField(db_default=Now())
    #: It has said goodbye.
    detached = models.BooleanField(db_default=False)
    delivered = models.BigIntegerField(db_default=0)
    failed = models.BigIntegerField(db_default=0)
    dead = models.BigIntegerField(db_default=0)
    version = models.CharField(max_length=32, default="")

    def __str__(self) -> str:
        return self.name
