"""The body's parser: JSON whatever its declared type, and what it refuses, with which status."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import RequestFactory
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from config.http.negotiation import IgnoreAccept, JSONBody


def parse(body: bytes, content_type: str = "application/json", **meta: Any) -> Any:
    made = RequestFactory().generic("POST", "/x", body, content_type=content_type, **meta)
    return Request(made, parsers=[JSONBody()], negotiator=IgnoreAccept()).data


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=UTF-8",
        "text/plain",
        "text/plain;charset=utf-8",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "application/vnd.api+json",
        "text/xml",
        "nonsense",
        "",
    ],
)
def test_json_is_taken_under_any_declared_type(content_type: str) -> None:
    assert parse(b'{"a": [1, "\xc3\xa9"]}', content_type) == {"a": [1, "é"]}


@pytest.mark.parametrize("charset", ["ISO-8859-1", '"latin1"', "utf-16", "gb18030", "UTF-8"])
def test_a_declared_charset_is_believed(charset: str) -> None:
    body = '{"a": "é"}'.encode(charset.strip('"'))
    assert parse(body, f"text/plain; charset={charset}") == {"a": "é"}


def test_byte_order_mark_is_skipped() -> None:
    assert parse(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("body", [b"", b"  \n", b"null"])
def test_nothing_is_an_empty_object(body: bytes) -> None:
    assert parse(body) == {}


@pytest.mark.parametrize(
    ("body", "content_type", "status", "says"),
    [
        (b"{", "application/json", 400, "not JSON"),
        (b"{", "text/plain", 400, "not JSON"),
        (b"a=1", "application/x-www-form-urlencoded", 400, "not JSON"),
        (b"<a/>", "text/xml", 415, "text/xml"),
        (b"[1]", "application/json", 400, "object"),
        (b'"text"', "application/json", 400, "object"),
        (b"{\xff}", "application/json", 400, "not utf-8"),
        (b'{"a": NaN}', "application/json", 400, "NaN"),
        (b'{"a": "\\u0000"}', "application/json", 400, "NUL"),
        (b'{"a": {"\\u0000": [1]}}', "application/json", 400, "NUL"),
        (b'{"a": "\\ud800"}', "application/json", 400, "surrogate"),
        (b"[" * 100_000, "application/json", 400, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "application/json", 400, "not JSON"),
        (b"{}", "text/plain; charset=hex", 415, "charset hex"),
        (b"{}", "text/plain; charset=punycode", 415, "charset punycode"),
    ],
)
def test_refusals(body: bytes, content_type: str, status: int, says: str) -> None:
    with pytest.raises(APIException) as caught:
        parse(body, content_type)
    assert caught.value.status_code == status
    assert says in str(caught.value.detail)


def test_an_escaped_backslash_before_u0000_is_text() -> None:
    assert parse(rb'{"a": "\\u0000", "b": "\ud83d\ude00"}') == {"a": "\\u0000", "b": "😀"}


def test_a_body_that_ended_early_is_refused_although_it_is_json() -> None:
    made = RequestFactory().generic("POST", "/x", b'{"a": 1}', content_type="application/json")
    made.META["CONTENT_LENGTH"] = "100"
    with pytest.raises(APIException, match="ended before its Content-Length"):
        _ = Request(made, parsers=[JSONBody()], negotiator=IgnoreAccept()).data


def test_compressed_bodies_are_refused() -> None:
    with pytest.raises(APIException) as caught:
        parse(b"{}", HTTP_CONTENT_ENCODING="gzip")
    assert caught.value.status_code == 415


def test_the_bytes_stay_readable_after_parsing() -> None:
    made = RequestFactory().generic("POST", "/x", json.dumps({"a": 1}).encode(), content_type="text/plain")
    request = Request(made, parsers=[JSONBody()], negotiator=IgnoreAccept())
    assert request.data == {"a": 1}
    assert made.body == b'{"a": 1}'
