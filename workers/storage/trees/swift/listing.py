"""Entries of folders, made of the names of objects."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from workers.storage.base import StorageFailed, Trouble
from workers.storage.swift import listing
from workers.storage.swift.reading import etag_of
from workers.storage.trees.base import Entry, shown
from workers.storage.trees.swift.access import Access

FOLDER: Final = "application/directory"
#: As rclone has it: seconds since 1970 with a fraction.
MTIME: Final = "X-Object-Meta-Mtime"
#: Of the whole content of a segmented object, which has none of Swift's.
MD5: Final = "X-Object-Meta-Gantry-Md5"
_FILE_MODE: Final = 0o100644
_FOLDER_MODE: Final = 0o040755
_NS: Final = 1_000_000_000


def folder_entry(name: bytes) -> Entry:
    return Entry(name=name, mode=_FOLDER_MODE)


def is_marker(content_type: str, size: int) -> bool:
    """An object that stands for a folder."""
    return not size and content_type.partition(";")[0].strip().lower() == FOLDER


def entry_of(name: bytes, head: dict[str, str]) -> Entry:
    """From the headers of an object."""
    size = int(head.get("content-length", 0))
    if is_marker(head.get("content-type", ""), size):
        return folder_entry(name)
    return Entry(name=name, mode=_FILE_MODE, size=size, mtime_ns=_mtime_ns(head), version=etag_of(head))


def _mtime_ns(head: dict[str, str]) -> int:
    for header in (MTIME.lower(), "x-timestamp"):
        try:
            seconds, _, fraction = head.get(header, "").strip().partition(".")
            return int(seconds) * _NS + int(fraction[:9].ljust(9, "0"))
        except ValueError:
            continue
    try:
        return int(parsedate_to_datetime(head["last-modified"]).timestamp()) * _NS
    except (KeyError, ValueError, TypeError):
        return 0


def mtime_header(mtime_ns: int) -> str:
    return f"{mtime_ns // _NS}.{mtime_ns % _NS:09d}"


def scan(access: Access, path: bytes) -> Iterator[Entry]:
    """What is in a folder. MISSING where nothing is; raised by whoever knows what else it may be."""
    prefix, found = access.folder(path), False
    pages = _borrowed(access, prefix)
    for told in pages:
        found = True
        whole = str(told.get("subdir") or told["name"])
        name = whole.removeprefix(prefix).removesuffix("/") if "subdir" in told else whole[len(prefix) :]
        if whole == prefix:
            continue  # the folder's own marker
        if name in ("", ".", ".."):
            raise StorageFailed(
                f"{shown(path)} cannot be listed: the object {whole!r} is in it, whose name is no path",
                Trouble.NAME,
            )
        if "subdir" in told:
            yield folder_entry(name.encode())
        elif not is_marker(str(told.get("content_type", "")), int(told["bytes"])):
            yield _told(name, told)
        elif not holds(access, f"{whole}/"):
            yield folder_entry(name.encode())  # some mark folders without a slash; else it is told as one
    if not found and path != b"/":
        raise StorageFailed(f"{shown(path)}: no such folder", Trouble.MISSING)


def _borrowed(access: Access, prefix: str) -> Iterator[dict[str, Any]]:
    with access.connection() as connection:
        yield from listing.entries(connection, access.container, prefix, "/")


def _told(name: str, told: dict[str, Any]) -> Entry:
    modified = datetime.fromisoformat(str(told["last_modified"])).replace(tzinfo=UTC)
    seconds = int(modified.replace(microsecond=0).timestamp())
    etag = str(told.get("slo_etag") or told["hash"]).strip('"')
    return Entry(
        name=name.encode(),
        mode=_FILE_MODE,
        size=int(told["bytes"]),
        mtime_ns=seconds * _NS + modified.microsecond * 1000,
        version=etag,
    )


def holds(access: Access, prefix: str, *, beside: str = "") -> bool:
    """Is there an object whose name begins so, other than ``beside``?"""
    with access.connection() as connection:
        found = listing.entries(connection, access.container, prefix, most=2 if beside else 1)
        return any(each["name"] != beside for each in found)
