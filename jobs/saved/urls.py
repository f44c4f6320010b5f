"""Routes of saved jobs, below api/jobs. A trailing slash is taken off before routing.

Ids are taken as text: one that is malformed is answered as one that does not exist.
"""

from __future__ import annotations

from django.urls import path

from jobs.saved import views

urlpatterns = [
    path("api/jobs", views.JobListView.as_view()),
    path("api/jobs/history", views.HistoryView.as_view()),
    path("api/jobs/<str:job_id>", views.JobView.as_view()),
    path("api/jobs/<str:job_id>/start", views.StartView.as_view()),
    path("api/jobs/<str:job_id>/inspect/<str:executor_id>", views.InspectView.as_view()),
    path("api/jobs/<str:job_id>/log/<str:executor_id>", views.LogView.as_view()),
    path("api/jobs/<str:job_id>/cancel/<str:executor_id>", views.CancelView.as_view()),
    path("api/jobs/<str:job_id>/retry/<str:executor_id>", views.RetryView.as_view()),
    path("api/jobs/<str:job_id>/explain/<str:executor_id>", views.ExplainView.as_view()),
]
