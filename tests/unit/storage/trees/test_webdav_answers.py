"""What WebDAV servers tell: names byte for byte, and answers that are none."""

from __future__ import annotations

import pytest

from workers.storage.trees.webdav.answers import MOST, NotDav, Told, resources, time_ns
from workers.storage.trees.webdav.checksums import of_digest, of_words

_ONE = """<D:response><D:href>{href}</D:href>{more}</D:response>"""
_FOUND = "<D:propstat><D:prop>{props}</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
_NOT = "<D:propstat><D:prop><D:getetag/></D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>"


def _told(*responses: str, cut: int = 7) -> list[Told]:
    text = f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{"".join(responses)}</D:multistatus>'.encode()
    return list(resources(text[at : at + cut] for at in range(0, len(text), cut)))


def _file(href: str, props: str = "<D:resourcetype/>") -> str:
    return _ONE.format(href=href, more=_NOT + _FOUND.format(props=props))


@pytest.mark.parametrize(
    ("href", "path", "name"),
    [
        ("/dav/a%20b", b"/dav/a b", b"a b"),
        ("/dav/a%2520b", b"/dav/a%20b", b"a%20b"),
        ("https://host:8443/dav/caf%C3%A9/", "/dav/café".encode(), "café".encode()),
        ("/dav/%FF", b"/dav/\xff", b"\xff"),
        ("/dav/a%2Fb", b"/dav/a/b", b"a/b"),
        ("/", b"", b""),
    ],
)
def test_names_are_bytes(href: str, path: bytes, name: bytes) -> None:
    [told] = _told(_file(href))
    assert (told.path, told.name) == (path, name)


def test_properties_are_those_that_were_found() -> None:
    props = (
        '<D:resourcetype/><D:getcontentlength>42</D:getcontentlength><D:getetag>"x"</D:getetag>'
        "<D:getlastmodified>Sun, 06 Nov 1994 08:49:37 GMT</D:getlastmodified>"
    )
    folder = "<D:resourcetype><D:collection/></D:resourcetype>"
    one, two = _told(_file("/a", props), _file("/b/", folder))
    assert (one.is_folder, one.size, one.etag, one.mtime_ns) == (False, 42, '"x"', 784111777 * 10**9)
    assert (two.is_folder, two.size, two.etag, two.mtime_ns) == (True, 0, "", 0)


def test_a_status_of_its_own() -> None:
    [told] = _told(_ONE.format(href="/a", more="<D:status>HTTP/1.1 423 Locked</D:status>"))
    assert told.status == 423


@pytest.mark.parametrize(
    "text", [b"", b"<html><p>Sign in</html>", b"<html/>", b'<D:multistatus xmlns:D="DAV:">']
)
def test_what_is_no_answer(text: bytes) -> None:
    with pytest.raises(NotDav):
        list(resources([text]))


def test_who_never_comes_to_an_end_is_not_heard_out() -> None:
    def flood() -> object:
        yield b'<D:multistatus xmlns:D="DAV:"><D:response><D:href>'
        while True:
            yield b"x" * 65536

    with pytest.raises(NotDav, match="1 MiB"):
        list(resources(flood()))  # type: ignore[arg-type]
    assert MOST == 1 << 20


def test_dates_that_are_none() -> None:
    assert [time_ns(text) for text in ("", "yesterday", "2026-01-01")] == [0, 0, 0]


def test_checksums() -> None:
    assert of_digest("adler32=3da0195", "adler32") == "03da0195"
    assert of_digest("MD5=1B2M2Y8AsgTpgAmY7PhCfg==, adler32=00000001", "md5") == (
        "d41d8cd98f00b204e9800998ecf8427e"
    )
    assert of_digest("md5=not base64!", "md5") == ""
    assert of_words("SHA1:aa MD5:D41D8CD98F00B204E9800998ECF8427E", "md5") == (
        "d41d8cd98f00b204e9800998ecf8427e"
    )
    assert of_words("SHA1:aa", "sha256") == ""
