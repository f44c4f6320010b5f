"""What comes in and goes out of every view: JSON, whatever Content-Type and Accept say.

Clients in the wild send JSON as text/plain, with a charset, as a form (curl's default) or without any type.
Must not import views.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.metadata import BaseMetadata
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

if TYPE_CHECKING:  # rest_framework.views loads this module while it loads itself
    from rest_framework.views import APIView

#: What a JSON body is declared as in practice; another declared type is blamed (415) when it is no JSON.
_PLAUSIBLE: Final = frozenset(
    (
        "",
        "application/json",
        "text/json",
        "text/plain",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
    )
)
#: Bodies that do not say by themselves where they end.
_FORMS: Final = frozenset(("application/x-www-form-urlencoded", "multipart/form-data"))
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s";]+)', re.IGNORECASE)
#: Declared charsets that are believed, by Python's names for them. A few others are slow or no text at all.
_CHARSETS: Final = frozenset(
    (
        *("utf-8", "utf8", "us-ascii", "ascii", "utf-16", "utf-16le", "utf-16be"),
        *(
            "iso-8859-1",
            "latin1",
            "latin-1",
            "iso-8859-15",
            "windows-1252",
            "cp1252",
            "windows-1251",
            "koi8-r",
        ),
        *("gbk", "gb2312", "gb18030", "big5", "shift_jis", "euc-jp", "euc-kr"),
    )
)


class IgnoreAccept(BaseContentNegotiation):
    """Always the view's first renderer and parser: no 406, no 415 by name alone."""

    def select_parser(self, request: Request, parsers: Sequence[BaseParser]) -> BaseParser:  # type: ignore[override]
        content_type = request.content_type.partition(";")[0].strip().lower()
        for parser in parsers:
            if parser.media_type == content_type:
                return parser
        return parsers[0]

    def select_renderer(  # type: ignore[override]
        self, request: Request, renderers: Sequence[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


class JSONBody(BaseParser):
    """A JSON object, whatever its declared type. Leaves the bytes in ``request.body``."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        request = (parser_context or {})["request"]
        raw: bytes = request.body
        if len(raw) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise RequestDataTooBig
        if len(raw) != int(request.META.get("CONTENT_LENGTH") or 0):
            raise ParseError("the body ended before its Content-Length: the connection was cut")
        declared = (media_type or "").partition(";")[0].strip().lower()
        found = _CHARSET.search(media_type or "")
        charset = found[1].lower() if found is not None else "utf-8"
        if charset not in _CHARSETS:
            raise UnsupportedMediaType(declared, f"the charset {charset[:40]} is not understood: send UTF-8")
        if "content-encoding" in request.headers:
            raise UnsupportedMediaType(declared, "Content-Encoding is not understood: send the body as it is")
        try:
            text = raw.decode("utf-8-sig" if charset in ("utf-8", "utf8") else charset)
        except UnicodeDecodeError as error:
            raise ParseError(f"the body is not {charset}: byte {error.start} cannot be read") from None
        if not text.strip():
            return {}
        try:
            data = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            if declared not in _PLAUSIBLE and not declared.endswith("+json"):
                raise UnsupportedMediaType(declared, f"the body is {declared[:60]}: send JSON") from None
            why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise ParseError(f"the body is not JSON: {why}") from None
        if data is None:
            return {}
        if not isinstance(data, dict):
            raise ParseError("the body must be a JSON object, in braces")
        _check_text(text, data)
        return data


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _check_text(source: str, data: Any) -> None:
    """Refuse what no database column or environment variable can hold: NUL and lone surrogates.

    Both can only come in as an escape, so that a body without one costs two searches.
    """
    if "\\u0000" not in source and "\\ud" not in source and "\\uD" not in source:
        return
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ParseError(
            "a text in the body has half of a surrogate pair (\\ud800 to \\udfff): it is no character"
        ) from None
    if _has_nul(data):
        raise ParseError("a text in the body has the character NUL (\\u0000), which cannot be stored")


def _has_nul(value: Any) -> bool:
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            if "\x00" in item:
                return True
        elif isinstance(item, dict):
            todo.extend(item.keys())
            todo.extend(item.values())
        elif isinstance(item, list):
            todo.extend(item)
    return False


class Methods(BaseMetadata):
    """The answer to OPTIONS: which methods there are, nothing about the code behind them."""

    def determine_metadata(self, request: Request, view: APIView) -> dict[str, Any]:
        return {"methods": view.allowed_methods}
