"""Routes of runtask, in the spelling of its document, and the list of job definitions."""

from __future__ import annotations

from django.urls import path

from jobs.runtask import views

urlpatterns = [
    path("runtask/", views.RuntaskView.as_view()),
    path("job/", views.JobView.as_view()),
    path("listjobs/", views.ListJobsView.as_view()),
    path("canceljob/", views.CancelJobView.as_view()),
    path("api/v1/definitions", views.DefinitionsView.as_view()),
]
