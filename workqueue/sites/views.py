"""Sites over HTTP: read the request, call one service, render the answer. Must not import models."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpResponse, HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from workers.api.answers import answer
from workers.api.lists import listed
from workqueue.calls import WorkqueueView
from workqueue.sites import credentials, reading, requests, schema, services, shapes


class SitesView(WorkqueueView):
    """/sites"""

    @extend_schema(**schema.LIST)
    def get(self, request: Request) -> HttpResponseBase:
        """The sites that the caller may use, oldest first."""
        return listed(request, reading.SiteRows(self.who()))

    @extend_schema(**schema.CREATE)
    def post(self, request: Request) -> HttpResponseBase:
        """Make a site."""
        wanted = requests.parse_site(self.body())

        def create() -> tuple[int, dict[str, Any]]:
            return 201, shapes.site(services.create(self.who(), wanted), None)

        return self.once(request, create)


class OneSiteView(WorkqueueView):
    """Base of the calls of one site."""

    def site_id(self) -> int:
        """Of the path. NoSuchSite."""
        return reading.number(self.kwargs["site_id"])

    def found(self) -> HttpResponse:
        """The site as its caller sees it now."""
        who = self.who()
        row = reading.site(who, self.site_id())
        return answer(shapes.site(row, reading.credential(who, row.pk)))


class SiteView(OneSiteView):
    """/sites/{id}"""

    @extend_schema(**schema.RETRIEVE)
    def get(self, request: Request, site_id: str) -> HttpResponseBase:
        """One site."""
        return self.found()

    @extend_schema(**schema.REPLACE)
    def put(self, request: Request, site_id: str) -> HttpResponseBase:
        """Replace what it is."""
        reading.site(self.who(), self.site_id())  # an unknown one is told first
        services.replace(self.who(), self.site_id(), requests.parse_site(self.body()))
        return self.found()

    @extend_schema(**schema.DELETE)
    def delete(self, request: Request, site_id: str) -> HttpResponseBase:
        """Delete it."""
        return answer(shapes.site(services.delete(self.who(), self.site_id()), None))


class CredentialsView(OneSiteView):
    """/sites/{id}/credentials"""

    @extend_schema(**schema.CREDENTIALS_PUT)
    def put(self, request: Request, site_id: str) -> HttpResponseBase:
        """Say as whom the caller is known there."""
        reading.site(self.who(), self.site_id())
        wanted = requests.parse_credentials(self.body())
        return answer(shapes.credentials(credentials.put(self.who(), self.site_id(), wanted)))

    @extend_schema(**schema.CREDENTIALS_REMOVE)
    def delete(self, request: Request, site_id: str) -> HttpResponseBase:
        """Forget it."""
        credentials.remove(self.who(), self.site_id())
        return answer(shapes.credentials(None))


class LimitsView(OneSiteView):
    """/sites/{id}/limits"""

    scopes: ClassVar[dict[str, str]] = {"PUT": "operate"}

    @extend_schema(**schema.LIMITS)
    def put(self, request: Request, site_id: str) -> HttpResponseBase:
        """How much may go on there at once."""
        reading.site(self.who(), self.site_id())
        services.set_limits(self.who(), self.site_id(), requests.parse_limits(self.body()))
        return self.found()


class BanView(OneSiteView):
    """/sites/{id}/ban"""

    scopes: ClassVar[dict[str, str]] = {"PUT": "operate", "DELETE": "operate"}

    @extend_schema(**schema.BAN_PUT)
    def put(self, request: Request, site_id: str) -> HttpResponseBase:
        """Let its jobs wait, or cancel them."""
        reading.site(self.who(), self.site_id())
        services.set_ban(self.who(), self.site_id(), requests.parse_ban(self.body()))
        return self.found()

    @extend_schema(**schema.BAN_LIFT)
    def delete(self, request: Request, site_id: str) -> HttpResponseBase:
        """Let its jobs go on."""
        services.lift_ban(self.who(), self.site_id())
        return self.found()


class LinksView(OneSiteView):
    """/sites/{id}/links"""

    @extend_schema(**schema.LINKS)
    def get(self, request: Request, site_id: str) -> HttpResponseBase:
        """What goes to and from it at once, and why."""
        row = reading.site(self.who(), self.site_id())
        return answer([shapes.link(each) for each in reading.links(self.who(), row.pk)])
