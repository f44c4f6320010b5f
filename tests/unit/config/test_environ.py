"""Requests as Django is told of them: which header is which, and what several of one name are."""

from __future__ import annotations

from typing import Any

from config.serving import environ


def scope(*headers: tuple[bytes, bytes], path: bytes = b"/") -> dict[str, Any]:
    return {
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "server": ("127.0.0.1", "8000"),
        "client": ("192.0.2.1", "4711"),
        "raw_path": path,
        "query_string": b"a=%20",
        "headers": headers,
    }


def test_a_name_with_an_underscore_is_nobodys() -> None:
    """Catches X_Token that is taken for X-Token: WSGI has one name for both."""
    given = [
        (b"x_token", b"theirs"),
        (b"x-token", b"mine"),
        (b"x_forwarded_for", b"1"),
        (b"content_type", b"x"),
    ]
    assert environ.headers_of(scope(*given)) == {"HTTP_X_TOKEN": "mine"}
    assert environ.headers_of(scope(*given[::-1])) == {"HTTP_X_TOKEN": "mine"}, "in any order, and again"


def test_several_headers_of_one_name_and_such_as_cannot_be_read() -> None:
    given = [
        *((b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"range", b"bytes=0-1"), (b"range", b"bytes=5-6")),
        *((b"content-type", b"text/plain"), (b"content-type", b"text/html"), (b"content-length", b"3")),
        *((b"idempotency-key", b"a\xfcb"), (b"x-callback-url", b"http://a/"), (b"x-callback-url", b"")),
    ]
    assert environ.headers_of(scope(*given)) == {
        "HTTP_COOKIE": "a=1;b=2",
        "HTTP_RANGE": "bytes=0-1,bytes=5-6",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
        "HTTP_IDEMPOTENCY_KEY": "",
        "HTTP_X_CALLBACK_URL": "http://a/,",
    }


def test_paths_are_bytes_and_names_of_headers_are_not_kept_for_ever() -> None:
    assert environ.path_of(scope(path=b"/v1/%FF%2F\xc3")) == "/v1/\xff/\xc3"
    for number in range(3 * environ._NAMES_MOST):
        environ.headers_of(scope((b"x-%d" % number, b"")))
    assert len(environ._names) == environ._NAMES_MOST
    assert environ.headers_of(scope((b"x-9999", b"y"))) == {"HTTP_X_9999": "y"}
    told = environ.environ_of(scope(), {"HTTP_A": "b"}, "/p", None)
    assert (told["REMOTE_ADDR"], told["PATH_INFO"], told["QUERY_STRING"]) == ("192.0.2.1", "/p", "a=%20")
    assert "PATH" not in told, "nothing of the process' environment"
