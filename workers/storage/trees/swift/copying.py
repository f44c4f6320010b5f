"""Copies that the server makes, and segments that pass from one attempt to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from swiftclient.client import copy_object, delete_object, head_object, put_object

from workers.storage.base import StorageFailed, Trouble, Upload
from workers.storage.swift import listing, names, segments, writing
from workers.storage.swift.connection import Connection
from workers.storage.swift.listing import Segment
from workers.storage.swift.reading import etag_of, is_segmented

#: Bytes of one object that the server is asked to copy: it says nothing meanwhile.
LARGEST: Final = 1 << 30
#: Headers that go with a segmented object; a plain one keeps all of its own.
_KEPT: Final = ("content-type", "content-encoding", "content-disposition")


def mark_of(tag: str, attempt: int) -> str:
    """What an attempt's segments, and the object that it makes, are known by."""
    return f"{tag}.{attempt}"


def attempt_of(tag: str, mark: str) -> int:
    """Which attempt of the element has that mark; 0: none."""
    number = mark.removeprefix(f"{tag}.") if mark.startswith(f"{tag}.") else ""
    return int(number) if number.isdigit() else 0


def head(connection: Connection, container: str, name: str) -> dict[str, str] | None:
    """The headers of an object; None: there is none."""
    try:
        found: dict[str, str] = connection.call(head_object, container, name, what=f"{container}/{name}")
    except StorageFailed as error:
        if error.trouble is not Trouble.MISSING:
            raise
        return None
    return found


def mark_at(connection: Connection, container: str, name: str) -> str:
    """Of the object that is there now; "" where it has none, or where there is none."""
    return (head(connection, container, name) or {}).get(writing.MARK.lower(), "")


def copy(connection: Connection, path: str, target: str, headers: dict[str, str] | None = None) -> None:
    """One object; paths are ``container/object``."""
    container, name = names.split(path)
    connection.call(
        copy_object, container, name, what=path, destination=f"/{target}", headers=dict(headers or {})
    )


def left(connection: Connection, container: str, name: str, beginning: str) -> list[tuple[str, Segment]]:
    """Marks and segments of attempts whose marks begin so."""
    place = names.segments_of(container)
    found = listing.listed(connection, place, names.folder(name, beginning))
    marked = [(names.mark_of(name, each.path.partition("/")[2]), each) for each in found]
    return [(mark, each) for mark, each in marked if mark]


def _of(connection: Connection, container: str, name: str, mark: str) -> list[Segment]:
    """The segments of one attempt in their order."""
    return [each for found, each in left(connection, container, name, mark) if found == mark]


def _claim(container: str, name: str, tag: str) -> str:
    """The object that says which attempt of an element has begun last, as far as it has left anything or
    taken anything over."""
    return f"{names.segments_of(container)}/{names.segment(name, mark_of(tag, 0), 0)}"


def claimant(connection: Connection, container: str, name: str, tag: str) -> int:
    """Which attempt that is; 0: none."""
    return attempt_of(tag, mark_at(connection, *names.split(_claim(container, name, tag))))


def claimed(connection: Connection, container: str, name: str, tag: str, attempt: int) -> None:
    """It is this one from now on: whoever was before sees it before it makes anything visible."""
    place, claim = names.split(_claim(container, name, tag))
    headers = {writing.MARK: mark_of(tag, attempt)}
    listing.make_container(connection, place)
    connection.call(
        put_object, place, claim, what=f"{place}/{claim}", contents=b"", content_length=0, headers=headers
    )


def taken_over(connection: Connection, container: str, name: str, before: str, mark: str) -> list[Segment]:
    """The whole segments of the attempt ``before``, ours from now on; it cannot complete any more.

    The first one goes first: without it the other's manifest is refused. Where that manifest was faster, or
    its report was lost, the segments are the content of the object that is there, and nothing is taken.
    """
    found = _of(connection, container, name, before)
    if not found or mark_at(connection, container, name) == before:
        return []
    place = names.segments_of(container)
    if before == mark:
        return _in_a_row(found, place, name, mark)
    ours = [
        Segment(f"{place}/{names.segment(name, mark, number)}", each.size, each.etag)
        for number, each in enumerate(found)
    ]
    copy(connection, found[0].path, ours[0].path)
    listing.delete(connection, [found[0].path])
    if mark_at(connection, container, name) == before:
        copy(connection, ours[0].path, found[0].path)
        listing.delete(connection, [ours[0].path])
        return []
    whole = _in_a_row(found, place, name, before)
    for each, copied_to in zip(whole[1:], ours[1:], strict=False):
        copy(connection, each.path, copied_to.path)
    listing.delete(connection, [each.path for each in found[1:]])
    if not whole:
        listing.delete(connection, [ours[0].path])
    return ours[: len(whole)]


def _in_a_row(found: list[Segment], place: str, name: str, mark: str) -> list[Segment]:
    """Two are sent at once: what follows a gap is of no use."""
    count = 0
    while count < len(found) and found[count].path == f"{place}/{names.segment(name, mark, count)}":
        count += 1
    return found[:count]


def discard(connection: Connection, container: str, name: str, tag: str, attempts: Iterable[int]) -> None:
    """Remove what these attempts have left, but not what is the content of the file that is there."""
    claim = claimant(connection, container, name, tag)
    for attempt in attempts:
        mark = mark_of(tag, attempt)
        found = [each.path for each in _of(connection, container, name, mark)]
        if found and mark_at(connection, container, name) != mark:
            listing.delete(connection, found)
        if attempt == claim:
            listing.delete(connection, [_claim(container, name, tag)])


def copied_segments(
    connection: Connection,
    source: str,
    found: dict[str, str],
    container: str,
    name: str,
    mark: str,
    moved: Callable[[int], None],
) -> list[Segment] | None:
    """Have the content of the object ``source`` (its headers are ``found``) copied as segments of another
    one; None: it cannot be done in parts that are small enough."""
    parts = [Segment(source, int(found.get("content-length", 0)), etag_of(found))]
    if is_segmented(found):
        parts = list(listing.manifest(connection, *names.split(source)).segments)
    elif "x-object-manifest" in found:
        return None
    if not parts or any(not each.etag or not 0 < each.size <= LARGEST for each in parts):
        return None
    place = names.segments_of(container)
    listing.make_container(connection, place)
    made = []
    for number, each in enumerate(parts):
        ours = Segment(f"{place}/{names.segment(name, mark, number)}", each.size, each.etag)
        copy(connection, each.path, ours.path)
        made.append(ours)
        moved(each.size)
    return made


def copied(connection: Connection, container: str, name: str, target: str, mark: str) -> None:
    """A whole object within the container, with what is told of it. Raises StorageFailed."""
    found = head(connection, container, name)
    if found is None:
        raise StorageFailed(f"{container}/{name}: no such object", Trouble.MISSING)
    if not is_segmented(found):
        copy(connection, f"{container}/{name}", f"{container}/{target}")
        return
    made = copied_segments(
        connection, f"{container}/{name}", found, container, target, mark, lambda count: None
    )
    if made is None:
        raise StorageFailed(
            f"{container}/{name} has segments that cannot be copied one by one: copy the file", Trouble.OTHER
        )
    headers = {
        key: value
        for key, value in found.items()
        if key in _KEPT or (key.startswith("x-object-meta-") and key != writing.REPLACES.lower())
    }
    size = sum(each.size for each in made)
    segments.put_manifest(
        connection, container, target, Upload(-1, size, mark), made, {**headers, writing.MARK.lower(): mark}
    )


def removed(connection: Connection, container: str, name: str, found: dict[str, str] | None = None) -> None:
    """An object (its headers are ``found``), and the segments that were made for it. Raises StorageFailed
    MISSING."""
    found = found or head(connection, container, name)
    if found is None:
        raise StorageFailed(f"{container}/{name}: no such object", Trouble.MISSING)
    connection.call(delete_object, container, name, what=f"{container}/{name}")
    mark = found.get(writing.MARK.lower(), "")
    if is_segmented(found) and mark:
        listing.delete_upload(connection, container, name, mark)


def moved(connection: Connection, container: str, name: str, target: str, mark: str) -> None:
    """An object gets another name, and whatever had that goes with its segments."""
    before = head(connection, container, target) or {}
    copied(connection, container, name, target, mark)
    replaced = before.get(writing.MARK.lower(), "")
    if is_segmented(before) and replaced:
        listing.delete_upload(connection, container, target, replaced)
    removed(connection, container, name)
