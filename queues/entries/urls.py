"""Routes of the queues family, below v1; in the seed's spelling, answered without the trailing slash too.

Names are taken as text: the views say which nothing can have. A word that another family owns below /v1 is
no type.
"""

from __future__ import annotations

from typing import Final

from django.urls import path, register_converter

from queues.entries import views

#: What other families answer below /v1.
TAKEN: Final = frozenset({"tasks"})


class TypeConverter:
    """A segment of a path that is no other family's."""

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        if value in TAKEN:
            raise ValueError(value)
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(TypeConverter, "queue")

urlpatterns = [
    path("v1/<queue:type>/", views.QueueView.as_view()),
    path("v1/<queue:type>/<str:request_id>/", views.EntryView.as_view()),
    path("v1/<queue:type>/<str:request_id>/confirm", views.ConfirmView.as_view()),
    path("v1/<queue:type>/<str:request_id>/explain", views.EntryExplainView.as_view()),
]
