"""Bodies that are forms: each field as text, a repeated one as a list. Leaves the bytes in ``request.body``.

JSON is read by the project's own parser (DRF's default), also when it is declared as a form, as curl does.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import IO, Any, Final
from urllib.parse import parse_qsl

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser, MultiPartParser
from rest_framework.views import APIView

#: Most fields of one form.
FIELDS_MOST: Final = 1000


def whole(request: Any) -> bytes:
    """The body's bytes, once they are all there."""
    raw: bytes = request.body
    if len(raw) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        raise RequestDataTooBig
    if len(raw) != int(request.META.get("CONTENT_LENGTH") or 0):
        raise ParseError("the body ended before its Content-Length: the connection was cut")
    return raw


def fields(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """A form's fields by name."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


class FormBody(BaseParser):
    """application/x-www-form-urlencoded, in UTF-8."""

    media_type = "application/x-www-form-urlencoded"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        raw = whole((parser_context or {})["request"])
        if raw.lstrip().startswith(b"{"):
            json_body: Any = APIView.parser_classes[0]()
            found: dict[str, Any] = json_body.parse(stream, media_type, parser_context)
            return found
        try:
            pairs = parse_qsl(
                raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MOST
            )
        except UnicodeDecodeError:
            raise ParseError("the form is not percent-encoded UTF-8") from None
        except ValueError:
            raise ParseError(f"the form has more than {FIELDS_MOST} fields") from None
        return fields(pairs)


class MultipartBody(BaseParser):
    """multipart/form-data; the parts are fields: a part with a file's name is refused."""

    media_type = "multipart/form-data"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        raw = whole((parser_context or {})["request"])
        found: Any = MultiPartParser().parse(BytesIO(raw), media_type, parser_context)
        if found.files:
            raise ParseError(
                f"{next(iter(found.files))[:60]} is a file: put files into the Swift, and name them"
            )
        return fields([(name, value) for name, values in found.data.lists() for value in values])
