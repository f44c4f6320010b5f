"""The admin's login, throttled: a password check costs 0.4 s of CPU and is the only password there is.

Must not import models.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Final

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from config.http import peers
from config.http.throttles import SharedBuckets

#: Per address: a few mistakes at once, then two a minute.
_attempts: Final = SharedBuckets("login", 10, 1 / 30)
#: Per user name, whatever the address: guessing from many machines at once is slow, too. Whoever is locked
#: out by others' guesses waits for a minute at most, or uses a token.
_names: Final = SharedBuckets("name", 30, 1 / 60)


def login(request: HttpRequest) -> HttpResponseBase:
    """/admin/login/: Django's own page, behind two buckets."""
    if request.method != "POST":
        return admin.site.login(request)
    address = peers.household(request.META)
    # As Django reads a name: otherwise each of its Unicode spellings is a bucket of its own.
    name = unicodedata.normalize("NFKC", request.POST.get("username", "")).strip().lower()[:150]
    if wait := _attempts.take(address) or _names.take(name):
        seconds = math.ceil(wait)
        return HttpResponse(
            f"Too many attempts from {address} or for this name: try again in {seconds} seconds.\n",
            status=429,
            content_type="text/plain; charset=utf-8",
            headers={"Retry-After": str(seconds)},
        )
    response = admin.site.login(request)
    if response.status_code == 302:
        _attempts.forget(address)
        _names.forget(name)
    return response
