"""URLs that need no token: a log's path and stream, signed with Django's SECRET_KEY, for some days.

The signature covers path, stream and expiry: it opens one stream of one object and nothing else. Must not
import models or HTTP.
"""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import urlencode

from django.conf import settings
from django.core.signing import BadSignature, Signer

_SALT: Final = "gantry.log"


def _signed(path: str, stream: str, expires: str) -> str:
    return f"{path}\n{stream}\n{expires}"


def log_url(path: str, stream: str, *, now: float | None = None) -> str:
    """The whole URL of one stream of the log at ``path``, good for GANTRY_SIGNED_URL_S from now on."""
    expires = str(int((time.time() if now is None else now) + settings.GANTRY_SIGNED_URL_S))
    signature = Signer(salt=_SALT).signature(_signed(path, stream, expires))
    query = urlencode({"stream": stream, "expires": expires, "signature": signature})
    return f"{settings.GANTRY_PUBLIC_URL}{path}?{query}"


def check(path: str, stream: str, expires: str, signature: str) -> str:
    """Why the signature does not open this stream now: "invalid", "expired", or "" when it does."""
    try:
        Signer(salt=_SALT).unsign(f"{_signed(path, stream, expires)}:{signature}")
    except BadSignature:
        return "invalid"
    return "" if int(expires) > time.time() else "expired"
