"""A pull worker's report, parsed as a stream: a listing of a million files never stands in memory.

The body goes to a temporary file first: a slow worker holds no row of the database. Folders of its listing
are put into a second one, and told in the order in which their job needs them.

Numbers are C's, never Python's: one of thousands of digits ends the process in the parser, and a decimal such
as 1e3000000 holds it for minutes. Events carry no path, which nested lists would make longer than the body.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final

import ijson
from django.conf import settings
from rest_framework.exceptions import ParseError

from workers.vocabulary.errors import InvalidInput
from workqueue.models.jobs import Type

_PIECE: Final = 64 * 1024
#: Bytes of a body that stay in memory.
_IN_MEMORY: Final = 1024 * 1024
#: Names in one line, as a mover writes them.
_NAMES: Final = 1000
#: Longest log that is read, in characters.
_LOG_MOST: Final = 1024 * 1024
#: Larger than any file; many of them still add up to what can be stored.
_LARGEST: Final = 2**53
#: What a report has, beside a listing.
_TOLD: Final = ("returncode", "host", "log", "timestamp")
#: Events (about one for each key and value) of one value: an entry of a listing has about 20.
_VALUE_MOST: Final = 10_000
_STATS: Final = ("st_size", "st_mtime", "st_nlink", "st_uid", "st_gid", "st_atime", "st_ctime")


@dataclass
class Report:
    """What was sent. ``folders``: (length of the path, where it begins, bytes) in ``spool``, as it came; of a
    folder with many names there are several."""

    returncode: int
    host: str
    log: str
    timestamp: str
    spool: IO[bytes]
    folders: list[tuple[int, int, int]] = field(default_factory=list)
    listing: bool = False
    #: In its listing.
    names: int = 0

    def lines(self, job_type: int) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """``folder`` lines of the listing (``transfers.orders``), in the order that the job's type asks for:
        as they stand in a report, and what they say."""
        order = list(range(len(self.folders)))
        if job_type == Type.COPY:
            order.sort(key=lambda index: self.folders[index][0])
        elif job_type == Type.REMOVE:
            order.sort(key=lambda index: -self.folders[index][0])
        for index in order:
            _, offset, size = self.folders[index]
            self.spool.seek(offset)
            folder, names, first, last = json.loads(self.spool.read(size))
            line = {"r": "folder", "n": 0, "d": folder, "e": names, "first": first, "last": last}
            yield json.dumps(line, separators=(",", ":")).encode() + b"\n", line


def receive(stream: IO[bytes], length: int) -> IO[bytes]:
    """The whole body in a file. Raises ParseError when it was cut."""
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (the caller closes it)
    left = length
    while left > 0:
        piece = stream.read(min(_PIECE, left))
        if not piece:
            file.close()
            raise ParseError("the body ended before its Content-Length: the connection was cut")
        file.write(piece)
        left -= len(piece)
    file.seek(0)
    return file


def most() -> int:
    """The longest report, in bytes."""
    return int(settings.GANTRY_WORKER_REPORT_MB) * 1024 * 1024


def parse(body: IO[bytes]) -> Report:
    """Raises InvalidInput naming the field; ParseError when it is no JSON object."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the report)
    try:
        return _parsed(body, Report(0, "", "", "", spool))
    except BaseException:
        spool.close()
        raise


def _parsed(body: IO[bytes], report: Report) -> Report:
    found: dict[str, Any] = {}
    try:
        events = ijson.basic_parse(body, use_float=True)
        if next(events)[0] != "start_map":
            raise ParseError("the body must be a JSON object, in braces")
        for event, value in events:
            if event != "map_key":
                continue
            if value == "listing":
                _listing(events, report)
            elif value in _TOLD:
                found[value] = _value(events, next(events), value)
            else:
                _skip(events)
    except ijson.IncompleteJSONError:
        raise ParseError("the body is not JSON: it ends too early, or a number in it is too large") from None
    except (ijson.JSONError, StopIteration, UnicodeDecodeError) as error:
        raise ParseError(f"the body is not JSON: {error}") from None
    for name in _TOLD:
        if found.get(name) is None:
            raise InvalidInput(
                f"{name} is missing: a report has returncode, host, log and timestamp", field=name
            )
    code = found["returncode"]
    if isinstance(code, bool) or not isinstance(code, int) or not -(2**31) <= code < 2**31:
        raise InvalidInput("returncode must be a whole number", field="returncode")
    report.returncode = code
    report.host, report.log, report.timestamp = (_text(found[name]) for name in ("host", "log", "timestamp"))
    return report


def _value(events: Any, begins: tuple[str, Any], name: str) -> Any:
    """The value of the stream that ``begins``, whole. InvalidInput when it is too large for that."""
    builder = ijson.ObjectBuilder()
    builder.event(*begins)
    depth = int(begins[0].startswith("start_"))
    for count, (event, value) in enumerate(events if depth else ()):
        if count > _VALUE_MOST:
            raise InvalidInput(
                f"{name[:200]!r} has more than {_VALUE_MOST} parts: send less", field=name[:60]
            )
        builder.event(event, value)
        depth += event.startswith("start_") - event.startswith("end_")
        if not depth:
            break
    return builder.value


def _skip(events: Any) -> None:
    """Past the next value of the stream, whatever it is."""
    depth = 0
    for event, _ in events:
        depth += event.startswith("start_") - event.startswith("end_")
        if not depth:
            return


def _listing(events: Any, report: Report) -> None:
    """{directory: [{name, st_mode, st_size...}]}, some names at a time; null is none."""
    event = next(events)[0]
    if event == "null":
        return
    if event != "start_map":
        raise InvalidInput(
            "listing must be an object: {directory: [{name, st_mode, st_size...}]}", field="listing"
        )
    report.listing = True
    for event, folder in events:
        if event == "end_map":
            return
        names: list[list[Any]] = []
        first = True
        if next(events)[0] != "start_array":
            raise _no_listing(folder)
        for begins in events:
            if begins[0] == "end_array":
                break
            if len(names) == _NAMES:
                _keep(report, folder, names, first, last=False)
                names, first = [], False
            names.append(_name(_value(events, begins, folder), folder))
        _keep(report, folder, names, first, last=True)


def _keep(report: Report, folder: str, names: list[list[Any]], first: bool, *, last: bool) -> None:
    """Put names of a folder into the spool."""
    text = json.dumps([folder, names, first, last], separators=(",", ":")).encode()
    report.names += len(names)
    report.spool.seek(0, 2)
    report.folders.append((len(folder), report.spool.tell(), len(text)))
    report.spool.write(text)


def _no_listing(folder: str) -> InvalidInput:
    return InvalidInput(
        f"listing: {folder[:200]!r} must have a list of objects with name, st_mode and st_size",
        field="listing",
    )


def _name(entry: Any, folder: str) -> list[Any]:
    """[name, mode, size, mtime, nlink, uid, gid, atime, ctime] of an entry of a listing."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise _no_listing(folder)
    try:
        numbers = [int(entry.get(name) or 0) for name in ("st_mode", *_STATS)]
    except (TypeError, ValueError, OverflowError):
        raise _no_listing(folder) from None
    if any(abs(number) > _LARGEST for number in numbers):
        raise _no_listing(folder)
    return [entry["name"], *numbers]


def _text(value: Any) -> str:
    """Text as it is, anything else as JSON: a host may be a nested list."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("\0", "")[:_LOG_MOST]
