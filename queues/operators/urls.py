"""Routes of /api/v1/queues. A trailing slash is taken off before routing.

Names of aggregates and owners may hold anything, percent-encoded. Paths are decoded before they are routed:
the last part of these routes takes slashes, too; a name that ends with a slash needs another one behind it.
"""

from __future__ import annotations

from django.urls import path, register_converter

from queues.operators import views


class Anything:
    """The rest of the path, line breaks included."""

    regex = r"(?s:.+)"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(Anything, "anything")

urlpatterns = [
    path("<str:type>/pools", views.PoolsView.as_view()),
    path("<str:type>/pools/<anything:aggregate>", views.PoolView.as_view()),
    path("<str:type>/policy", views.PolicyView.as_view()),
    path("<str:type>/quotas", views.QuotasView.as_view()),
    path("<str:type>/quotas/<anything:owner_id>", views.QuotaView.as_view()),
    path("<str:type>/capacity", views.CapacityView.as_view()),
    path("<str:type>/simulate", views.SimulateView.as_view()),
]
