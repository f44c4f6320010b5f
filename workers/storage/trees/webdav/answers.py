"""What a server tells of the resources of a folder (207 Multi-Status), read as it comes. Pure.

Sources: RFC 4918, 9.1 and 14.24; the hrefs are decoded to bytes, so that no name is changed on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

#: Most bytes of what is told about one resource: who sends more would fill our memory.
MOST: Final = 1 << 20
_DAV: Final = "{DAV:}"
CHECKSUMS: Final = "{http://owncloud.org/ns}checksums"


class NotDav(ValueError):
    """It is no Multi-Status."""


@dataclass(frozen=True, slots=True)
class Told:
    """One resource. ``path`` is decoded, without a trailing slash ("/" of the host itself is empty);
    ``name`` its last component, which may hold a slash where a server encodes one. ``status`` is its own
    HTTP status, 0 where it has none."""

    path: bytes
    name: bytes
    status: int
    is_folder: bool
    size: int
    mtime_ns: int
    etag: str
    available: int | None
    checksums: str


def resources(pieces: Iterable[bytes]) -> Iterator[Told]:
    """Every resource of an answer's body. Raises NotDav."""
    parser: Any = XMLPullParser(events=("start", "end"))
    top: Element | None = None
    since = 0
    try:
        for piece in pieces:
            parser.feed(piece)
            since += len(piece)
            for event, node in parser.read_events():
                if top is None:
                    top = node
                    if node.tag != f"{_DAV}multistatus":
                        raise NotDav(f"its root is {node.tag[:80]}")
                elif event == "end" and node.tag == f"{_DAV}response":
                    since = 0
                    yield from _told(node)
                    top.clear()
            if since > MOST + len(piece):
                raise NotDav("it tells more than 1 MiB about one resource")
        parser.close()
    except (ParseError, ValueError) as error:
        raise NotDav(str(error)) from None
    if top is None:
        raise NotDav("it is empty")


def _told(node: Element) -> Iterator[Told]:
    status = _status(node.findtext(f"{_DAV}status"))
    props = _props(node)
    folder = props is not None and props.find(f"{_DAV}resourcetype/{_DAV}collection") is not None
    for href in node.iterfind(f"{_DAV}href"):
        written = urlsplit((href.text or "").strip()).path.rstrip("/")
        yield Told(
            path=unquote_to_bytes(written),
            name=unquote_to_bytes(written.rpartition("/")[2]),
            status=status,
            is_folder=folder,
            size=_number(_text(props, "getcontentlength")) or 0,
            mtime_ns=time_ns(_text(props, "getlastmodified")),
            etag=_text(props, "getetag"),
            available=_number(_text(props, "quota-available-bytes")),
            checksums=""
            if props is None
            else " ".join((props.findtext(f"{CHECKSUMS}") or "").split())
            or " ".join(text for node in props.iterfind(CHECKSUMS) for text in node.itertext()),
        )


def _props(node: Element) -> Element | None:
    """The properties that there are: each status has a list of its own."""
    for found in node.iterfind(f"{_DAV}propstat"):
        if _status(found.findtext(f"{_DAV}status")) in (0, 200):
            return found.find(f"{_DAV}prop")
    return None


def _status(line: str | None) -> int:
    """ "HTTP/1.1 404 Not Found"."""
    words = (line or "").split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def _text(props: Element | None, name: str) -> str:
    return "" if props is None else (props.findtext(f"{_DAV}{name}") or "").strip()


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def time_ns(text: str) -> int:
    """Of a date of HTTP ("Sun, 06 Nov 1994 08:49:37 GMT"); 0 where it is none."""
    try:
        found: datetime = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return 0
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()) * 1_000_000_000
