"""Jobs of the runtask family: the number that clients know, and the run that says how it goes.

Nothing of a run's state is stored here, and nothing secret anywhere but in ``workers.secrets``. A job goes
with its run (retention of the tenant and family). Must not import views or other families.
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from workers.models import Run, Tenant


class RuntaskJob(models.Model):
    """One call of /runtask/. Its primary key is the job id, and the name of an output that has no other."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False)
    #: Null only within the transaction that makes both: the job's id is part of what the run does.
    run = models.OneToOneField(Run, null=True, on_delete=models.CASCADE, related_name="runtask_job")
    #: Name of the job definition; "" for a command line (cm).
    definition = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "runtask job"
        indexes = [models.Index(fields=["tenant", "id"], name="runtask_of_tenant")]

    def __str__(self) -> str:
        return f"{self.pk} {self.definition or 'cm'}"


class RuntaskDefinition(models.Model):
    """No table: job definitions are files (``jobs.runtask.catalogue``); this gives them an admin page."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        verbose_name = "runtask definition"
