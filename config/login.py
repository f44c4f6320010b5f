"""The admin's login, throttled: a password check costs 0.4 s of CPU and is the only password there is.

Must not import models.
"""

from __future__ import annotations

import math
from typing import Final

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from config import peers

#: Per address: a few mistakes at once, then two a minute.
_attempts: Final = peers.Buckets(burst=10, per_second=1 / 30)


def login(request: HttpRequest) -> HttpResponseBase:
    """/admin/login/: Django's own page, behind a bucket."""
    if request.method != "POST":
        return admin.site.login(request)
    address = peers.peer(request.META)
    if wait := _attempts.take(address):
        seconds = math.ceil(wait)
        return HttpResponse(
            f"Too many attempts from {address}: try again in {seconds} seconds.\n",
            status=429,
            content_type="text/plain; charset=utf-8",
            headers={"Retry-After": str(seconds)},
        )
    response = admin.site.login(request)
    if response.status_code == 302:
        _attempts.forget(address)
    return response
