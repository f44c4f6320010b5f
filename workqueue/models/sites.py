"""Sites: where files are, how they are reached, as whom, and how much may go on there at once."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from workers.models import Secret, Tenant


class Site(models.Model):
    """A place with files. ``endpoints`` is [{protocol, host, port, path, options}], the preferred first."""

    class Visibility(models.TextChoices):
        PUBLIC = "public", "every tenant"  # made by operators only
        TENANT = "tenant", "its tenant"
        PRIVATE = "private", "its owner"

    class Ban(models.TextChoices):
        NONE = "", "-"
        CANCEL = "cancel", "its jobs are cancelled, new ones refused"
        WAIT = "wait", "its jobs wait, new ones are refused"
        WAIT_AS = "wait_as", "its jobs wait, new ones are accepted and wait"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    #: Null: an operator's, which no user owns.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    #: Made by someone with the scope operate: such a site's addresses are trusted.
    by_operator = models.BooleanField(db_default=False)
    name = models.CharField(max_length=128)
    description = models.TextField(blank=True, db_default="")
    visibility = models.CharField(max_length=8, choices=Visibility.choices)
    default_path = models.TextField(db_default="/")
    endpoints = models.JSONField()
    #: Certificates in PEM of the authorities that its servers are to be trusted by; [] = the system's.
    cas = models.JSONField(default=list, db_default=[])
    #: Lines as in known_hosts, or "<type> <base64>".
    host_keys = models.JSONField(default=list, db_default=[])
    #: Streams at once into and out of it; null = the installation's.
    max_active_in = models.IntegerField(null=True, blank=True)
    max_active_out = models.IntegerField(null=True, blank=True)
    max_bytes_per_s = models.BigIntegerField(null=True, blank=True)
    #: Its jobs are for pull workers alone.
    pull_only = models.BooleanField(db_default=False)
    ban = models.CharField(max_length=8, choices=Ban.choices, blank=True, db_default="")
    ban_message = models.TextField(blank=True, db_default="")
    ban_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    #: It is no more to be found; jobs that name it still say so.
    deleted_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], condition=Q(deleted_at=None), name="site_once")
        ]

    def __str__(self) -> str:
        return self.name


class Credential(models.Model):
    """As whom a user is known at a site. Only references to encrypted values."""

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="credentials")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    username = models.CharField(max_length=255, blank=True, db_default="")
    password = models.ForeignKey(Secret, null=True, on_delete=models.SET_NULL, related_name="+")
    key = models.ForeignKey(Secret, null=True, on_delete=models.SET_NULL, related_name="+")
    proxy = models.ForeignKey(Secret, null=True, on_delete=models.SET_NULL, related_name="+")
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "site"], name="credential_once")]

    def __str__(self) -> str:
        return f"{self.user_id} at {self.site_id}"


class Link(models.Model):
    """From one site to another: how many streams go at once, and how that went lately."""

    source = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="links_out", db_index=False)
    target = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="links_in")
    #: Streams at once, adapted.
    streams = models.IntegerField()
    #: Since the last change or look.
    succeeded = models.IntegerField(db_default=0)
    failed = models.IntegerField(db_default=0)
    moved = models.BigIntegerField(db_default=0)  # bytes
    busy_s = models.FloatField(db_default=0.0)  # seconds that streams were busy
    #: Bytes per second of the last window, for comparison.
    throughput = models.FloatField(db_default=0.0)
    #: Why it is what it is, for operators.
    sentence = models.TextField(blank=True, db_default="")
    looked_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["source", "target"], name="link_once")]

    def __str__(self) -> str:
        return f"{self.source_id} -> {self.target_id}: {self.streams}"


class LinkChange(models.Model):
    """One change of a link's streams, with its reason."""

    link = models.ForeignKey(Link, on_delete=models.CASCADE, related_name="changes")
    at = models.DateTimeField(db_default=Now())
    streams_before = models.IntegerField()
    streams = models.IntegerField()
    sentence = models.TextField()

    def __str__(self) -> str:
        return self.sentence
