"""All routes. Each is declared once, in the spelling of its document, and answers with and without a
trailing slash: the guard takes the slash off a request's path, ``either_spelling`` off a route's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.urls.resolvers import RoutePattern

from config.http.health import HealthView, MetricsView, ReadyView
from config.http.login import login
from config.http.openapi import DocsView, SchemaView

handler400 = "config.http.errors.page_400"
handler403 = "config.http.errors.page_403"
handler404 = "config.http.errors.page_404"
handler500 = "config.http.errors.page_500"


class SlashedRoute(RoutePattern):
    """A route that is written with a trailing slash and meets a path from which it was taken off."""

    def match(self, path: str) -> tuple[str, tuple[Any, ...], dict[str, int | str]] | None:
        return super().match(path + "/")


def either_spelling(patterns: Iterable[URLPattern | URLResolver]) -> list[URLPattern | URLResolver]:
    """The same routes; those with a trailing slash learn to do without it. Changes them in place."""
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            either_spelling(pattern.url_patterns)
        elif isinstance(pattern.pattern, RoutePattern) and str(pattern.pattern).endswith("/"):
            route = SlashedRoute(str(pattern.pattern), pattern.pattern.name, is_endpoint=True)
            pattern.pattern = route
    return list(patterns)


urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/login/", login),
    path("admin/", admin.site.urls),
    *either_spelling(
        [
            path("", include("tasks_api.urls")),  # each family writes its whole paths, as its document does
            path("", include("jobs.saved.urls")),
            path("", include("jobs.runtask.urls")),
            path("", include("workqueue.urls")),
            path("api/v1/queues/", include("queues.operators.urls")),
            path("", include("queues.entries.urls")),  # any other word below /v1 is a queue's type
            path("api/v1/", include("workers.api.urls")),
            path("api/schema/", SchemaView.as_view(), name="schema"),
            path("api/docs/", DocsView.as_view(), name="docs"),
            path("healthz", HealthView.as_view()),
            path("readyz", ReadyView.as_view()),
            path("metrics", MetricsView.as_view()),
        ]
    ),
]
