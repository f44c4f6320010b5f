"""What stands in a container, in the manifest of a segmented object, and how both are removed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import md5
from typing import Any, Final

from swiftclient.client import delete_object, get_container, get_object, put_container

from workers.storage.base import StorageFailed, Trouble
from workers.storage.swift import names
from workers.storage.swift.connection import Connection

#: Entries of one page of a listing.
_PAGE: Final = 1000
#: Of a manifest: a thousand segments take a quarter of a megabyte, an operator may allow more.
_LONGEST_MANIFEST: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class Segment:
    """A part of a segmented object. ``etag`` empty: its MD5 is not that of the bytes it contributes."""

    path: str
    size: int
    etag: str


@dataclass(frozen=True)
class Manifest:
    """The parts of a segmented object in their order, and the ETag that an object of them has."""

    segments: tuple[Segment, ...]
    etag: str


def manifest(connection: Connection, container: str, name: str) -> Manifest:
    """Of the object that stands there now. Raises StorageFailed."""
    what = f"{container}/{name}"
    _, body = connection.call(
        get_object, container, name, what=what, query_string="multipart-manifest=get", resp_chunk_size=65536
    )
    try:
        pieces, size = [], 0
        while piece := connection.read(lambda: body.read(65536), what):
            size += len(piece)
            if size > _LONGEST_MANIFEST:
                raise StorageFailed(f"the manifest of {what} is too large to be read", Trouble.OTHER)
            pieces.append(piece)
    finally:
        body.close()
    try:
        return parsed(json.loads(b"".join(pieces)))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise StorageFailed(f"the manifest of {what} is not Swift's", Trouble.OTHER) from None


def parsed(entries: list[dict[str, Any]]) -> Manifest:
    """A manifest as Swift shows it."""
    found: list[Segment] = []
    whole = md5(usedforsecurity=False)
    for entry in entries:
        extent, nested = entry.get("range"), entry.get("sub_slo")
        digest, size = str(entry["hash"]).strip('"'), int(entry["bytes"])
        whole.update(f"{digest}:{extent};".encode() if extent else digest.encode())
        if extent:
            first, _, last = str(extent).partition("-")
            size = int(last) - int(first) + 1
        path = str(entry["name"]).lstrip("/")
        found.append(Segment(path, size, "" if extent or nested else digest))
    return Manifest(tuple(found), whole.hexdigest())


def listed(connection: Connection, container: str, prefix: str) -> Iterator[Segment]:
    """The objects of a container whose names begin so; none when there is no such container."""
    try:
        for entry in entries(connection, container, prefix):
            yield Segment(f"{container}/{entry['name']}", int(entry["bytes"]), str(entry["hash"]))
    except StorageFailed as error:
        if error.status != 404:
            raise


def entries(
    connection: Connection, container: str, prefix: str, delimiter: str = "", most: int | None = None
) -> Iterator[dict[str, Any]]:
    """What Swift tells of each object whose name begins so, in the order of names, ``most`` at most.

    With a delimiter {"subdir": ...} for all objects whose names go on with one. Raises StorageFailed.
    """
    marker, page_size = "", min(most or _PAGE, _PAGE)
    while True:
        _, page = connection.call(
            get_container,
            container,
            what=f"container {container}",
            prefix=prefix,
            delimiter=delimiter or None,
            marker=marker,
            limit=page_size,
        )
        yield from page
        if len(page) < page_size or most:
            return
        marker = page[-1].get("name") or page[-1]["subdir"]


def delete(connection: Connection, paths: Iterable[str]) -> None:
    """Remove objects; those that are not there are no mistake."""
    for path in paths:
        container, name = names.split(path)
        try:
            connection.call(delete_object, container, name, what=path)
        except StorageFailed as error:
            if error.status != 404:
                raise


def delete_upload(
    connection: Connection, container: str, name: str, mark: str, keep: Iterable[str] = ()
) -> None:
    """Remove the segments of one upload, but those at ``keep``."""
    kept = set(keep)
    place = names.segments_of(container)
    found = listed(connection, place, names.folder(name, mark) + "/")
    delete(
        connection,
        [
            each.path
            for each in found
            if names.mark_of(name, each.path.partition("/")[2]) == mark and each.path not in kept
        ],
    )


def make_container(connection: Connection, container: str) -> None:
    """Make it where it is missing."""
    connection.call(put_container, container, what=f"container {container}")
