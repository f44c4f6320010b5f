"""From a changing request and its answer to a record of the audit log. Must not import views.

What a record tells of the request: its route, the ids in its path and query, the run, job or site that it
made or moved, the aggregate that it declared, the owner whose quota it changed. Nothing else of its body, no
other parameter, no credential.
"""

from __future__ import annotations

import re
from typing import Any, Final

from django.http import HttpRequest
from django.utils import timezone
from structlog.contextvars import get_contextvars

from config.http import errors, peers
from workers.tenants import audit
from workers.tenants.begun import NO_ANSWER, Begun
from workers.vocabulary.errors import without_user_info

#: Parameters that name things by number.
_IDS: Final = ("taskId", "taskIds", "job_id")
#: What a call has made or moved: its number, bound to the call's log by the service.
_MADE: Final = ("run", "job_id", "site_id")
#: Things of a service that their body names: bound to the call's log by the service.
_NAMES: Final = ("aggregate", "owner_id")
_NUMBERS = re.compile(r"[0-9]{1,19}(,[0-9]{1,19}){0,99}")
#: Names in paths are kept to this length: they may be anything.
_LONGEST: Final = 150


def begin(request: HttpRequest, request_id: str) -> Begun[audit.Record]:
    """To have around a changing call: its first change leaves who made it, in its own commit."""
    return Begun(lambda: _record(request, NO_ANSWER, request_id))


def note(request: HttpRequest, status: int, request_id: str, begun: Begun[audit.Record] | None) -> None:
    """Record a changing call. One outside the families is an operator's: it is written before the answer.

    ``begun``: what was around it; None when it was refused before.
    """
    told, mark = (None, None) if begun is None else (begun.told, begun.mark)
    if told is None or not told.via:  # a login is somebody's only now
        told = _record(request, status, request_id)
    audit.note(told.answered(timezone.now(), status, _made(), mark))
    if audit.is_running() and _at_once(request, status):
        audit.flush()


def _record(request: HttpRequest, status: int, request_id: str) -> audit.Record:
    identity = getattr(request, "identity", None)
    user: Any = getattr(request, "user", None)
    who: dict[str, Any] = {}
    if identity is not None:
        who = {
            "user_name": identity.user_name,
            "token_prefix": identity.token_prefix if identity.via in ("token", "basic") else "",
            "via": identity.via,
            "tenant_id": identity.tenant_id,
            "tenant_name": identity.tenant_name,
        }
    elif user is not None and user.is_authenticated:
        who = {"user_name": user.get_username(), "via": "session"}
    match = request.resolver_match
    return audit.Record(
        at=timezone.now(),
        method=request.method or "",
        route=match.route if match is not None else "",
        status=status,
        request_id=request_id,
        peer=peers.peer(request.META),
        about=_about(request),
        **who,
    )


def _at_once(request: HttpRequest, status: int) -> bool:
    """Is it a call whose record must not be lost even if this process is killed next?"""
    return status < 400 and errors.family_of(request.path_info) == "api"


def _named(name: str, value: str) -> str:
    """A thing's name in a path; a registry's without the user name and password that somebody wrote there."""
    return (
        without_user_info(f"registries/{value}").partition("/")[2]
        if name == "registry"
        else without_user_info(value)
    )


def _about(request: HttpRequest) -> dict[str, Any]:
    found: dict[str, Any] = {}
    match = request.resolver_match
    if match is not None:
        for name, value in match.kwargs.items():
            if isinstance(value, int | str):
                found[name] = value if isinstance(value, int) else _named(name, value)[:_LONGEST]
    for name in _IDS:
        # Not of a query that was refused for its length: Django would refuse to read it here.
        given = request.GET.get(name, "") if match is not None else ""
        if _NUMBERS.fullmatch(given):
            found[name] = given
    return found


def _made() -> dict[str, Any]:
    """What services have bound to the call's log."""
    found: dict[str, Any] = {}
    bound = get_contextvars()
    for name in _MADE:
        if isinstance(number := bound.get(name), int):
            found[name] = number
    for name in _NAMES:
        if isinstance(value := bound.get(name), str):
            found[name] = value[:_LONGEST]
    return found
