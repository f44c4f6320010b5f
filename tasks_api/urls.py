"""Routes of the tasks family, below v1/tasks. A trailing slash is taken off before routing."""

from __future__ import annotations

from django.urls import path, register_converter

from tasks_api import views


class IdConverter:
    """Any 64-bit integer, as in taskIds; what is larger is no path."""

    regex = "-?[0-9]{1,19}"

    def to_python(self, value: str) -> int:
        if not -(2**63) <= int(value) < 2**63:
            raise ValueError(value)
        return int(value)

    def to_url(self, value: int) -> str:
        return str(value)


register_converter(IdConverter, "taskid")

urlpatterns = [
    path("v1/tasks", views.TasksView.as_view()),
    path("v1/tasks/kill", views.KillView.as_view()),
    path("v1/tasks/reconcile", views.ReconcileView.as_view()),
    path("v1/tasks/<taskid:task_id>", views.OneTaskView.as_view()),
    path("v1/tasks/<taskid:task_id>/logs", views.TaskLogsView.as_view()),
    path("v1/tasks/<taskid:task_id>/explain", views.TaskExplainView.as_view()),
]
