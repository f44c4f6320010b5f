"""Runs and what belongs to them. Only ``workers.runs.transitions`` writes a run's state."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from workers.models.nodes import Node
from workers.models.tenancy import Tenant
from workers.vocabulary.states import FINAL, Reason, State


class Shape(models.Model):
    """What a run asks of a node. Fit is decided once per shape, not once per run.

    ``constraints`` is a canonical JSON object {attribute: sorted [values]}; a node fits when each of its
    attributes is one of the values.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    kind = models.CharField(max_length=16)
    cpu_m = models.IntegerField()
    mem_mb = models.IntegerField()
    constraints = models.JSONField(default=dict)
    #: Fixed ports of the host, "8080/tcp", sorted: two runs with the same one never share a node.
    host_ports = ArrayField(models.CharField(max_length=10), default=list, db_default=[])
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "kind", "cpu_m", "mem_mb", "constraints", "host_ports"],
                name="shape_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.cpu_m / 1000:g} CPU {self.mem_mb} MiB"


class Run(models.Model):
    """One unit of work that a worker executes: the only thing with a lease and a state machine."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT)
    family = models.CharField(max_length=16)
    kind = models.CharField(max_length=16)
    name = models.CharField(max_length=255)
    #: The family's own id of what this run belongs to.
    owner_id = models.CharField(max_length=64, blank=True, default="")
    shape = models.ForeignKey(Shape, on_delete=models.PROTECT)
    spec = models.JSONField()
    #: 0 to 9, the lower the sooner; 5 is normal.
    priority = models.SmallIntegerField(default=5)
    #: Order key: time of submission in microseconds, shifted by priority times an aging step.
    rank = models.BigIntegerField()

    state = models.CharField(max_length=10, choices=State.choices, db_default=State.PENDING)
    reason = models.CharField(max_length=16, choices=Reason.choices, blank=True, db_default="")
    message = models.TextField(blank=True, db_default="")
    exit_code = models.IntegerField(null=True)

    node = models.ForeignKey(Node, null=True, on_delete=models.PROTECT, related_name="runs")
    attempt = models.IntegerField(db_default=0)
    lease_epoch = models.IntegerField(db_default=0)
    lease_until = models.DateTimeField(null=True)
    #: How often a worker died without a goodbye while it watched this run.
    crashes = models.SmallIntegerField(db_default=0)

    #: Set while it waits for its next try.
    not_before = models.DateTimeField(null=True)
    retries_left = models.SmallIntegerField(default=0)
    #: Its further tries are for what the node or we did to it, not for a failure of its own work.
    losses_only = models.BooleanField(db_default=False)
    #: Longest time of one attempt in seconds; null = no limit.
    timeout_s = models.IntegerField(null=True)
    #: From TERM to KILL, in seconds.
    grace_s = models.SmallIntegerField(default=10)
    #: Silence of its node after which the attempt is given up; null = the installation's, 0 = never.
    node_lost_after_s = models.IntegerField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    cancelled_by_operator = models.BooleanField(db_default=False)
    callback_url = models.TextField(blank=True, db_default="")
    #: The only user of the tenant who sees it (operators do, too); null = all of the tenant.
    private_to = models.IntegerField(null=True)
    #: The run that this one repeats at a client's request.
    retry_of = models.ForeignKey(
        "self", null=True, on_delete=models.SET_NULL, db_constraint=False, db_index=False
    )

    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    #: When retention deleted what its attempts wrote.
    log_pruned_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=sorted(FINAL), finished_at__isnull=False)
                | (~Q(state__in=sorted(FINAL)) & Q(finished_at__isnull=True)),
                name="run_finished_iff_final",
            ),
            models.CheckConstraint(
                condition=Q(state=State.RUNNING, lease_until__isnull=False, node__isnull=False)
                | (~Q(state=State.RUNNING) & Q(lease_until__isnull=True)),
                name="run_leased_iff_running",
            ),
            models.CheckConstraint(condition=Q(state__in=State.values), name="run_state_known"),
            models.CheckConstraint(condition=Q(priority__gte=0, priority__lte=9), name="run_priority_range"),
        ]
        indexes = [
            models.Index(
                fields=["shape", "rank", "id"],
                condition=Q(state=State.PENDING, not_before=None),
                name="run_claimable",
            ),
            models.Index(
                fields=["not_before"],
                condition=Q(state=State.PENDING, not_before__isnull=False),
                name="run_backing_off",
            ),
            models.Index(fields=["expires_at"], condition=Q(state=State.PENDING), name="run_expiring"),
            models.Index(fields=["node", "tenant"], condition=Q(state=State.RUNNING), name="run_running"),
            models.Index(fields=["tenant", "id"], name="run_of_tenant"),
            models.Index(
                fields=["tenant", "family", "finished_at"],
                condition=Q(finished_at__isnull=False),
                name="run_ended_of",
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} {self.name}"


class HostPort(models.Model):
    """A port of a node that a running run holds; the schema gives it to one at a time."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, db_index=False)
    #: As in ``Shape.host_ports``.
    port = models.CharField(max_length=10)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="host_ports")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["node", "port"], name="hostport_once")]

    def __str__(self) -> str:
        return f"{self.port} of node {self.node_id}"


class Attempt(models.Model):
    """One try of a run on one node."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="attempts", db_index=False)
    number = models.IntegerField()
    node = models.ForeignKey(Node, on_delete=models.PROTECT, db_index=False)
    #: RUNNING while it lasts, then how it ended (also for attempts that were followed by another).
    state = models.CharField(max_length=10, choices=State.choices, db_default=State.RUNNING)
    reason = models.CharField(max_length=16, choices=Reason.choices, blank=True, db_default="")
    message = models.TextField(blank=True, db_default="")
    exit_code = models.IntegerField(null=True)
    claimed_at = models.DateTimeField(db_default=Now())
    #: When the command or container really started; null if it never did.
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    log_bytes = models.BigIntegerField(db_default=0)
    log_truncated = models.BooleanField(db_default=False)
    #: Lengths of stdout and stderr, in bytes, that retention has deleted; null = nothing of it.
    log_pruned = ArrayField(models.BigIntegerField(), null=True)
    #: What the runtime found out: {"image_digest"} of a container, {"exec_id", "container_id", "pid"} of an
    #: exec.
    facts = models.JSONField(default=dict, db_default={})

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="attempt_once")]

    def __str__(self) -> str:
        return f"run {self.run_id} attempt {self.number}"


class RunEvent(models.Model):
    """One recorded transition, or what an attempt began or did while its state stayed the same (``note``)."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events", db_index=False)
    at = models.DateTimeField(db_default=Now())
    from_state = models.CharField(max_length=10)
    to_state = models.CharField(max_length=10)
    reason = models.CharField(max_length=16, blank=True, db_default="")
    attempt = models.IntegerField(db_default=0)
    #: Who: a node's name, "reconciler", "client" or "operator".
    by = models.CharField(max_length=128, db_default="")
    #: What was begun or done, where that is no change of state: "storing 2 outputs".
    note = models.CharField(max_length=200, blank=True, db_default="")

    class Meta:
        indexes = [models.Index(fields=["run", "id"], name="event_of_run")]

    def __str__(self) -> str:
        return f"run {self.run_id}: {self.from_state} -> {self.to_state}"


class LogChunk(models.Model):
    """A piece of an attempt's output. Idempotent by offset; read and written by ``workers.logs`` only."""

    class Stream(models.IntegerChoices):
        STDOUT = 1
        STDERR = 2

    pk = models.CompositePrimaryKey("run_id", "attempt", "stream", "offset")
    run_id = models.BigIntegerField()
    attempt = models.IntegerField()
    stream = models.SmallIntegerField(choices=Stream.choices)
    #: Of the first byte, counted from the start of the stream.
    offset = models.BigIntegerField()
    data = models.BinaryField()

    def __str__(self) -> str:
        return f"run {self.run_id} attempt {self.attempt} stream {self.stream} at {self.offset}"
