"""A request as the server tells it (ASGI) -> as Django wants it (WSGI).

Here, and not in the server, headers get their names: WSGI has one name for ``X-Token`` and ``X_Token``, so
that whoever sends the second would be taken for somebody who sends the first, past every proxy that sets or
removes it. A header whose name has an underscore is nobody's.
"""

from __future__ import annotations

import sys
from typing import Any, Final
from urllib.parse import unquote_to_bytes

_FIXED: Final[dict[str, Any]] = {
    "SCRIPT_NAME": "",
    "wsgi.errors": sys.stderr,
    "wsgi.version": (1, 0),
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}
#: Names that have come before; bounded, as clients may make up any number of them.
_names: dict[bytes, str] = {}
_NAMES_MOST: Final = 1000


def headers_of(scope: dict[str, Any]) -> dict[str, str]:
    """The headers by their WSGI names. Several of one name are one, joined by commas (cookies by
    semicolons); one
    that is not ASCII is an empty text; of several types of the body the first is meant."""
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = _names.get(raw)
        if name is None:
            name = _name(raw)
        if not name:
            continue
        text = value.decode() if value.isascii() else ""
        if name not in found:
            found[name] = text
        elif name == "HTTP_COOKIE":
            found[name] += ";" + text
        elif name != "CONTENT_TYPE":
            found[name] += "," + text
    return found


def _name(raw: bytes) -> str:
    name = ""
    if b"_" not in raw:
        name = raw.decode("latin-1").upper().replace("-", "_")
        if name not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            name = "HTTP_" + name
    if len(_names) < _NAMES_MOST:
        _names[raw] = name
    return name


def path_of(scope: dict[str, Any]) -> str:
    """Its bytes, one character each."""
    raw: bytes = scope["raw_path"]
    return (unquote_to_bytes(raw) if b"%" in raw else raw).decode("latin-1")


def environ_of(scope: dict[str, Any], headers: dict[str, str], path: str, body: object) -> dict[str, Any]:
    """What PEP 3333 asks for; nothing of this process' environment."""
    server, client = scope["server"], scope["client"]
    return {
        **_FIXED,
        **headers,
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": "HTTP/1.0" if scope["http_version"] == "1" else f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "REQUEST_METHOD": scope["method"],
        "PATH_INFO": path,
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": body,
    }
