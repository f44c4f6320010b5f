"""The tasks family stores nothing of its own: a task is a run whose family is "tasks".

Must not import views or other families.
"""

from __future__ import annotations

from typing import ClassVar, Final

from django.db import models

from workers.models import Run

FAMILY: Final = "tasks"


class TaskManager(models.Manager["Task"]):
    """Only the runs of this family."""

    def get_queryset(self) -> models.QuerySet[Task]:
        return super().get_queryset().filter(family=FAMILY)


class Task(Run):
    """A run seen as a task; taskId is the run's id. No table of its own."""

    objects: ClassVar[TaskManager] = TaskManager()

    class Meta:
        proxy = True
        verbose_name = "task"

    def __str__(self) -> str:
        return f"task {self.pk} {self.name}"
