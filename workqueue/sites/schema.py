"""What the OpenAPI document says about the calls of sites. Must not import views or services."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter

from workers.api.schema import KEY, asked, operation, shown
from workqueue.documented import PAGE, errors, failed
from workqueue.sites import serializers as s

_TAG: Final = "workqueue sites"
_ID: Final = OpenApiParameter("site_id", int, OpenApiParameter.PATH)
_NO_SITE: Final = failed(404, "there is no site 13")

BODY_EXAMPLE: Final[dict[str, Any]] = {
    "name": "cluster",
    "description": "scratch of the cluster",
    "default_path": "/scratch/ann",
    "visibility": "tenant",
    "endpoints": [{"protocol": "SFTP", "host": "login.example.org", "port": 22, "path": "/"}],
    "cas": [],
    "host_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5rqU0m7y1fQfQkV0h0o5n8f0lq1n0mJt8m6hXr2f2Y"],
}
LOCAL_EXAMPLE: Final[dict[str, Any]] = {
    "name": "archive",
    "visibility": "public",
    "endpoints": [{"protocol": "LOCAL", "path": "/data/archive"}],
}
LIMITS_EXAMPLE: Final = {"max_active_in": 8, "max_active_out": 16, "max_bytes_per_s": None}
BAN_EXAMPLE: Final = {
    "mode": "wait",
    "message": "disk is being replaced",
    "until": "2026-12-01T08:00:00.000000Z",
}
CREDENTIALS_EXAMPLE: Final = {"set": ["username", "key"], "changed_at": "2026-11-22T10:00:00.000000Z"}
SITE_EXAMPLE: Final[dict[str, Any]] = {
    "id": 13,
    **BODY_EXAMPLE,
    "endpoints": [{**BODY_EXAMPLE["endpoints"][0], "options": {}}],
    "by_operator": False,
    "pull_only": False,
    "limits": {"max_active_in": None, "max_active_out": None, "max_bytes_per_s": None},
    "ban": None,
    "credentials": CREDENTIALS_EXAMPLE,
    "created_at": "2026-11-22T09:00:00.000000Z",
}
LINK_EXAMPLE: Final[dict[str, Any]] = {
    "source": 13,
    "target": 15,
    "streams": 6,
    "bytes_per_s": 81200000.0,
    "sentence": "6 streams: with 6 it moved 81 MB/s, with 4 it had been 62 MB/s",
    "changed_at": "2026-11-22T10:00:00.000000Z",
    "changes": [
        {
            "at": "2026-11-22T10:00:00.000000Z",
            "from": 4,
            "to": 6,
            "sentence": "6 streams: with 6 it moved 81 MB/s, with 4 it had been 62 MB/s",
        }
    ],
}

LIST: Final = operation(
    "workqueue_sites_list",
    _TAG,
    "The sites that the caller may use",
    {200: s.SiteSerializer(many=True), **errors(400)},
    parameters=PAGE,
    examples=[shown("a site", SITE_EXAMPLE)],
)
CREATE: Final = operation(
    "workqueue_sites_create",
    _TAG,
    "Make a site",
    {201: s.SiteSerializer, **errors(400, 409)},
    parameters=[KEY],
    request=s.SiteBodySerializer,
    examples=[
        asked("over SSH", BODY_EXAMPLE),
        shown("made", SITE_EXAMPLE, "201"),
        failed(409, "there is a site 'cluster' in this tenant: use another name"),
    ],
)
RETRIEVE: Final = operation(
    "workqueue_sites_retrieve",
    _TAG,
    "One site, and which credentials of the caller are set there",
    {200: s.SiteSerializer, **errors(404)},
    parameters=[_ID],
    examples=[shown("a site", SITE_EXAMPLE), _NO_SITE],
)
REPLACE: Final = operation(
    "workqueue_sites_replace",
    _TAG,
    "Replace what a site is; limits, ban and credentials stay",
    {200: s.SiteSerializer, **errors(404, 409)},
    parameters=[_ID],
    request=s.SiteBodySerializer,
    examples=[asked("over SSH", BODY_EXAMPLE), shown("as it is now", SITE_EXAMPLE), _NO_SITE],
)
DELETE: Final = operation(
    "workqueue_sites_delete",
    _TAG,
    "Delete a site that no unfinished job uses",
    {200: s.SiteSerializer, **errors(404, 409)},
    parameters=[_ID],
    examples=[shown("as it was", {**SITE_EXAMPLE, "credentials": {"set": [], "changed_at": None}}), _NO_SITE],
)
CREDENTIALS_PUT: Final = operation(
    "workqueue_sites_credentials_put",
    _TAG,
    "Say as whom the caller is known at a site; replaces all that was said before",
    {200: s.SiteCredentialsSerializer, **errors(404)},
    parameters=[_ID],
    request=s.SiteCredentialsBodySerializer,
    examples=[
        asked("name and password", {"username": "ann", "password": "..."}),
        shown("what is set now", {**CREDENTIALS_EXAMPLE, "set": ["username", "password"]}),
        _NO_SITE,
    ],
)
CREDENTIALS_REMOVE: Final = operation(
    "workqueue_sites_credentials_remove",
    _TAG,
    "Forget the caller's credentials at a site",
    {200: s.SiteCredentialsSerializer, **errors(404)},
    parameters=[_ID],
    examples=[shown("nothing is set", {"set": [], "changed_at": None}), _NO_SITE],
)
LIMITS: Final = operation(
    "workqueue_sites_limits",
    _TAG,
    "Operators: how much may go on at a site at once",
    {200: s.SiteSerializer, **errors(404)},
    parameters=[_ID],
    request=s.SiteLimitsSerializer,
    examples=[
        asked("streams", LIMITS_EXAMPLE),
        shown("as it is now", {**SITE_EXAMPLE, "limits": LIMITS_EXAMPLE}),
        _NO_SITE,
    ],
)
BAN_PUT: Final = operation(
    "workqueue_sites_ban",
    _TAG,
    "Operators: let a site's jobs wait, or cancel them",
    {200: s.SiteSerializer, **errors(404)},
    parameters=[_ID],
    request=s.SiteBanSerializer,
    examples=[
        asked("until tomorrow", BAN_EXAMPLE),
        shown("banned", {**SITE_EXAMPLE, "ban": BAN_EXAMPLE}),
        _NO_SITE,
    ],
)
BAN_LIFT: Final = operation(
    "workqueue_sites_ban_lift",
    _TAG,
    "Operators: let a site's jobs go on",
    {200: s.SiteSerializer, **errors(404)},
    parameters=[_ID],
    examples=[shown("as it is now", SITE_EXAMPLE), _NO_SITE],
)
LINKS: Final = operation(
    "workqueue_sites_links",
    _TAG,
    "How many streams go between a site and others at once, and why",
    {200: s.SiteLinkSerializer(many=True), **errors(404)},
    parameters=[_ID],
    examples=[shown("a link", LINK_EXAMPLE), _NO_SITE],
)
