"""Nodes: machines on which a worker runs, with capacity, attributes and a heartbeat."""

from __future__ import annotations

from typing import Final

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Now

#: Among a node's troubles, beside kinds of run.
LEFTOVERS: Final = "leftovers"


class Node(models.Model):
    """One machine. Reservations are kept here, and the schema refuses to oversubscribe it.

    ``cpu_m`` columns are thousandths of a CPU, ``mem_mb`` MiB. ``total`` never falls below ``used``: when a
    node comes back smaller than what still runs on it, its total shrinks as its runs end.
    """

    class Mode(models.TextChoices):
        """What the operator wants; whether the node is silent follows from the heartbeat."""

        READY = "ready", "takes work"
        DRAINING = "draining", "takes no new work, finishes what it has"
        REMOVED = "removed", "gone for good; its runs were closed"

    name = models.CharField(max_length=128, unique=True)
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.READY)
    #: Grows with every start of a worker under this name; a worker of an older incarnation writes nothing.
    incarnation = models.BigIntegerField(default=0)
    #: The data folder of the worker: a worker started on the same folder sees the same processes and takes
    #: over at once; one elsewhere may not while anything still runs under this name.
    folder = models.UUIDField(null=True)
    #: True while the last worker has said goodbye and no other has come.
    detached = models.BooleanField(default=True)
    attributes = models.JSONField(default=dict)
    swarm_node_id = models.CharField(max_length=64, blank=True, default="")
    runtimes = ArrayField(models.CharField(max_length=16), default=list)
    #: Does each run get a user of its own here?
    isolates_users = models.BooleanField(default=False)
    cpu_m_configured = models.IntegerField()
    mem_mb_configured = models.IntegerField()
    cpu_m_total = models.IntegerField()
    mem_mb_total = models.IntegerField()
    cpu_m_used = models.IntegerField(default=0)
    mem_mb_used = models.IntegerField(default=0)
    #: How many runs the worker takes at once, whatever their size.
    slots = models.IntegerField(default=64)
    slots_used = models.IntegerField(default=0)
    #: A run that was passed over too long: what becomes free here is kept for it.
    reserved_for = models.OneToOneField(
        "Run", null=True, on_delete=models.SET_NULL, related_name="reserved_on", db_constraint=False
    )
    heartbeat_at = models.DateTimeField(db_default=Now())
    #: Heartbeats so far: its worker notices by it that the database was set back (restored from a backup).
    beats = models.BigIntegerField(db_default=0)
    #: When a message last made the round trip through the broker to this worker.
    broker_ok_at = models.DateTimeField(null=True)
    #: Why it takes no work although it is ready, in words; empty when all is well.
    trouble = models.CharField(max_length=255, blank=True, default="")
    #: The same by kind of run, {kind: words}, where only some of its runtimes are in trouble. Under LEFTOVERS
    #: what it could not remove, which keeps no work away.
    troubles = models.JSONField(default=dict, db_default=Value({}, models.JSONField()))
    version = models.CharField(max_length=32, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(cpu_m_used__gte=0, cpu_m_used__lte=F("cpu_m_total")), name="node_cpu"
            ),
            models.CheckConstraint(
                condition=Q(mem_mb_used__gte=0, mem_mb_used__lte=F("mem_mb_total")), name="node_mem"
            ),
            models.CheckConstraint(condition=Q(slots_used__gte=0), name="node_slots"),
        ]

    def __str__(self) -> str:
        return self.name


class Installation(models.Model):
    """The one row that names this database: what nodes create outside of it carries the name.

    ``generation`` is the life of the database, for nodes to recognise an older one: a restored backup keeps
    its generation until ``after_restore`` begins a new one. The name stays.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    name = models.CharField(max_length=12)
    generation = models.UUIDField(db_default=RandomUUID())
    restored_at = models.DateTimeField(null=True)
    #: What names of containers are hashed with, so that nobody guesses another's from its own.
    container_key = models.UUIDField(db_default=RandomUUID())

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="installation_once")]

    def __str__(self) -> str:
        return self.name


class NodeRequest(models.Model):
    """A question that the API asks a node about its engine's truth; the node's agent answers the row."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE)
    kind = models.CharField(max_length=32)
    payload = models.JSONField(default=dict)
    answer = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    answered_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["node"], condition=Q(answered_at=None), name="noderequest_open")]

    def __str__(self) -> str:
        return f"{self.kind} to {self.node_id}"
