"""Routes of the workqueue family: twice the same, at v1.0 and, with the later client's shapes, at v1.1.

Ids are taken as text: one that is malformed is answered as one that does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.urls import URLPattern, path
from rest_framework.views import APIView

from workqueue.documented import later
from workqueue.jobs import schema as jobs
from workqueue.jobs import views
from workqueue.pull import schema as pulled
from workqueue.pull import views as pull
from workqueue.sites import schema as sites
from workqueue.sites import views as site_views

_JOB: Final = "jobs/<str:job_id>"
_ELEMENT: Final = f"{_JOB}/elements/<str:element_id>"
_SITE: Final = "sites/<str:site_id>"
_LATER: Final = jobs.LATER

#: Path, view, and what its methods are documented as at v1.1.
_ROUTES: Final[list[tuple[str, type[APIView], dict[str, dict[str, Any]]]]] = [
    ("jobs", views.JobsView, {"get": _LATER["jobs"], "post": _LATER["create"]}),
    *((name, views.registering(name), {"post": _LATER[name]}) for name in jobs.POSTS),
    (_JOB, views.JobView, {"get": _LATER["job"]}),
    (f"{_JOB}/output", views.JobOutputView, {"get": _LATER["output"]}),
    (f"{_JOB}/status", views.JobStatusView, {"get": jobs.STATUS}),
    (f"{_JOB}/progress", views.ProgressView, {"get": jobs.PROGRESS}),
    (f"{_JOB}/explain", views.JobExplainView, {"get": jobs.EXPLAIN}),
    (f"{_JOB}/manifest", views.ManifestView, {"get": jobs.MANIFEST}),
    (f"{_JOB}/cancel", views.JobCancelView, {"post": jobs.CANCEL}),
    (f"{_JOB}/retry", views.JobRetryView, {"post": jobs.RETRY}),
    (f"{_JOB}/elements", views.ElementsView, {"get": _LATER["elements"]}),
    (_ELEMENT, views.ElementView, {"get": _LATER["element"]}),
    (f"{_ELEMENT}/status", views.ElementStatusView, {"get": jobs.ELEMENT_STATUS}),
    (f"{_ELEMENT}/output", views.ElementOutputView, {"get": _LATER["element_output"]}),
    (f"{_ELEMENT}/output/<str:attempt>", views.AttemptOutputView, {"get": _LATER["attempt_output"]}),
    ("worker/jobs", pull.PullView, {"post": pulled.PULL}),
    (f"worker/{_ELEMENT}", pull.ReportView, {"put": pulled.REPORT}),
    (f"worker/{_ELEMENT}/monitoring", pull.MonitoringView, {"put": pulled.MONITORING}),
    ("sites", site_views.SitesView, {"get": sites.LIST, "post": sites.CREATE}),
    (
        _SITE,
        site_views.SiteView,
        {"get": sites.RETRIEVE, "put": sites.REPLACE, "delete": sites.DELETE},
    ),
    (
        f"{_SITE}/credentials",
        site_views.CredentialsView,
        {"put": sites.CREDENTIALS_PUT, "delete": sites.CREDENTIALS_REMOVE},
    ),
    (f"{_SITE}/limits", site_views.LimitsView, {"put": sites.LIMITS}),
    (f"{_SITE}/ban", site_views.BanView, {"put": sites.BAN_PUT, "delete": sites.BAN_LIFT}),
    (f"{_SITE}/links", site_views.LinksView, {"get": sites.LINKS}),
]


def _patterns() -> Iterator[URLPattern]:
    for route, view, documented in _ROUTES:
        yield path(f"workqueue/api/v1.0/{route}", view.as_view())
        yield path(f"workqueue/api/v1.1/{route}", later(view, **documented).as_view())


urlpatterns = [
    *_patterns(),
    #: Where the original's workers ask for it, of another service there.
    path("site/api/v1.0/endpoint/<str:site_id>", pull.EndpointView.as_view()),
]
