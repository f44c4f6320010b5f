"""Operators' page of sites: what they are, their limits and bans, and how much goes where at once.

What is changed here goes through ``workqueue.sites.services``, as the API's calls do. Nobody's credentials
are shown or set. Must not import views.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from workers.admin import ReadOnly
from workers.vocabulary.errors import EngineError
from workqueue.models import Credential, Link, LinkChange, Site
from workqueue.sites import requests, services, shapes
from workqueue.sites.requests import BanRequest, LimitsRequest
from workqueue.who import Who

if TYPE_CHECKING:  # Django's classes take no parameter at run time
    SiteFormBase = forms.ModelForm[Site]
else:
    SiteFormBase = forms.ModelForm

#: What is read as the body of a request.
_WANTED: Final = (
    *("name", "description", "visibility", "default_path", "endpoints", "cas", "host_keys", "pull_only"),
)
_LIMITS: Final = ("max_active_in", "max_active_out", "max_bytes_per_s")
_BAN: Final = ("ban", "ban_message", "ban_until")
_FIXED: Final = ("owner", "by_operator", "known", "links", "created_at", "deleted_at")
_SHOWN: Final = 50
_WIDE: Final = {"cols": 100, "rows": 4}


class SiteForm(SiteFormBase):
    """Refuses what the API refuses, at the field that has to change."""

    default_path = forms.CharField(
        initial="/", widget=forms.TextInput(attrs={"size": 60}), help_text="Where relative paths and ~ begin."
    )
    endpoints = forms.JSONField(
        initial=list,
        widget=forms.Textarea(attrs=_WIDE),
        help_text='The preferred one first: [{"protocol": "SSH", "host": "login.example.org", "port": 22, '
        '"path": "/"}], or [{"protocol": "LOCAL", "path": "/data"}] for a folder that a node offers.',
    )
    cas = forms.JSONField(
        label="Authorities",
        required=False,
        initial=list,
        empty_value=[],
        widget=forms.Textarea(attrs=_WIDE),
        help_text="A list of PEM texts: trusted in the place of the system's.",
    )
    host_keys = forms.JSONField(
        required=False,
        initial=list,
        empty_value=[],
        widget=forms.Textarea(attrs=_WIDE),
        help_text='A list of lines as in known_hosts: ["ssh-ed25519 AAAA..."] (ssh-keyscan shows them).',
    )
    ban_message = forms.CharField(required=False, widget=forms.TextInput(attrs={"size": 100}))

    class Meta:
        labels: Final = {
            "pull_only": "For pull workers only",
            "max_active_in": "Files into it at once",
            "max_active_out": "Files out of it at once",
            "max_bytes_per_s": "Bytes per second",
        }
        help_texts: Final = {
            **dict.fromkeys(("max_active_in", "max_active_out"), "Empty: as GANTRY_SITE_STREAMS says."),
            "max_bytes_per_s": "In each direction. Empty: no limit.",
            "ban": "What becomes of its jobs.",
            "ban_until": "Empty: until it is lifted.",
        }

    def clean(self) -> dict[str, Any]:
        given = self.cleaned_data
        if self.errors:
            return given
        row = self.instance if self.instance.pk else Site(by_operator=True)
        tenant = given.get("tenant", row.tenant_id)
        try:
            given["wanted"] = requests.parse_site({name: given.get(name) for name in _WANTED})
            services.check(row, given["wanted"])
            requests.parse_limits({name: given.get(name) for name in _LIMITS})
        except EngineError as error:
            field = (error.field or "").partition("[")[0]
            self.add_error(field if field in self.fields else None, error.message)
        same = Site.objects.filter(tenant=tenant, name=given.get("name"), deleted_at=None)
        if same.exclude(pk=row.pk).exists():
            self.add_error("name", "The tenant has a site of this name: use another one")
        return given


@admin.register(Site)
class SiteAdmin(ReadOnly):
    """Every site of every tenant. To delete one: DELETE /workqueue/api/v1.0/sites/{id}."""

    form = SiteForm
    list_display = ("id", "name", "tenant", "visibility", "servers", "ban", "created_at", "deleted_at")
    list_filter = ("tenant", "visibility", "ban")
    list_select_related = ("tenant",)
    search_fields = ("name",)
    search_help_text = "A site's number, or its whole name"
    fields = ("tenant", *_WANTED, *_LIMITS, *_BAN, *_FIXED)

    @admin.display(description="Servers")
    def servers(self, site: Site) -> str:
        """Protocol and host of each endpoint."""
        return ", ".join(f"{each['protocol']} {each['host'] or each['path']}" for each in site.endpoints)

    @admin.display(description="Credentials")
    def known(self, site: Site) -> SafeString:
        """Who has some, and which; never what they are."""
        rows = Credential.objects.filter(site=site).select_related("user").order_by("pk")[:_SHOWN]
        told = ((row.user.get_username(), ", ".join(shapes.credentials(row)["set"])) for row in rows)
        return format_html_join("", "{}: {}<br>", told) or SafeString("-")

    @admin.display(description="Links")
    def links(self, site: Site) -> SafeString:
        """What goes from and to it at once, why, and what changed last."""
        rows = Link.objects.filter(source=site) | Link.objects.filter(target=site)
        links = list(rows.select_related("source", "target").order_by("source_id", "target_id")[:_SHOWN])
        newest = LinkChange.objects.filter(link__in=links).order_by("link_id", "-at", "-pk")
        last = {each.link_id: each for each in newest.distinct("link_id")}
        told = (
            (
                row.source.name,
                row.target.name,
                row.streams,
                "" if row.pk in last and last[row.pk].sentence == row.sentence else f"{row.sentence}.",
                f"Since {last[row.pk].at:%Y-%m-%d %H:%M:%S}: {last[row.pk].sentence}."
                if row.pk in last
                else "",
            )
            for row in links
        )
        return format_html_join("", "{} &rarr; {}: {} streams. {} <em>{}</em><br>", told) or SafeString("-")

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return tuple(name for name in self.fields if obj is not None or name not in _FIXED)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return () if obj is None else ("tenant", *_FIXED)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(getattr(request.user, "is_superuser", False))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_add_permission(request) and (obj is None or obj.deleted_at is None)

    def save_model(self, request: HttpRequest, obj: Site, form: Any, change: bool) -> None:
        """As the calls: POST or PUT of the site, its limits, its ban."""
        given = form.cleaned_data
        who = Who(obj.tenant_id, request.user.pk, True)
        if not change:
            obj.pk = services.create(who, given["wanted"]).pk
        else:
            services.replace(who, obj.pk, given["wanted"])
        if set(form.changed_data) & set(_LIMITS):
            services.set_limits(who, obj.pk, LimitsRequest(*(given[name] for name in _LIMITS)))
        if set(form.changed_data) & set(_BAN):
            services.set_ban(who, obj.pk, BanRequest(*(given[name] for name in _BAN)))
