"""Operators' pages at /admin/: look at runs, attempts, events and nodes; superusers keep tenants and tokens.

Read-only where the engine writes. Nothing here counts or sorts a whole table, and no secret is shown: values
of environments are masked, tokens have none. One module for each subject; Django finds this one, which
imports them all. Must not import families.
"""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.models import Group

from workers.admin import callbacks, nodes, records, tenants, users
from workers.admin.pages import ReadOnly, shown_url
from workers.admin.runs import RunAdmin

__all__ = ["ReadOnly", "RunAdmin", "callbacks", "nodes", "records", "shown_url", "tenants", "users"]

admin.site.site_header = admin.site.site_title = "Gantry"
admin.site.index_title = "Operators' pages"
admin.site.site_url = "/api/docs/"
# Rights come from being a superuser, from memberships and from tokens' scopes: groups would only mislead.
if admin.site.is_registered(Group):
    admin.site.unregister(Group)
