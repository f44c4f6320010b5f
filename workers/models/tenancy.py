"""Who owns work: tenants, the users in them, and the tokens that users present."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class Tenant(models.Model):
    """The owner of work. ``name`` is what X-Tenant-Id carries."""

    name = models.CharField(max_length=64, unique=True)
    title = models.CharField(max_length=255, blank=True, default="")
    active = models.BooleanField(default=True)
    #: May this tenant run commands on a node that cannot give each run a user of its own?
    #: True only for the first tenant: its members and the worker's account are the same people.
    trusted_with_worker_account = models.BooleanField(default=False)
    #: What an operator has opened for this tenant, e.g. {"commands": false}. Keys: workers.tenants.policy.
    policy = models.JSONField(default=dict, blank=True)
    #: Other limits than the installation's, e.g. {"waiting_runs": 500}. Keys: workers.tenants.limits.
    limits = models.JSONField(default=dict, blank=True, db_default={})
    #: Other times than the installation's, e.g. {"runs_d": 30, "families": {"tasks": {"logs_d": 3}}}.
    #: Keys: workers.tenants.retention_policy.
    retention = models.JSONField(default=dict, blank=True, db_default={})
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A user belongs to a tenant; one of a user's tenants is the default one."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="memberships")
    is_default = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "tenant"], name="membership_once"),
            models.UniqueConstraint(
                fields=["user"], condition=models.Q(is_default=True), name="membership_one_default"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.tenant_id}"


class Token(models.Model):
    """A credential of a user. Only its SHA-256 is stored: tokens are random, a slow hash adds nothing."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=128)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    #: The first characters, so that a person can tell tokens apart.
    prefix = models.CharField(max_length=12, editable=False)
    scopes = ArrayField(models.CharField(max_length=16))
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}...)"
