"""A pull worker's report, parsed as a stream: a listing of a million files never stands in memory.

The body goes to a temporary file first: a slow worker holds no row of the database. Folders of its listing
are put into a second one, and told in the order in which their job needs them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
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
_STATS: Final = ("st_size", "st_mtime", "st_nlink", "st_uid", "st_gid", "st_atime", "st_ctime")


@dataclass
class Report:
    """What was sent. ``folders``: (length of the path, where it begins, bytes) in ``spool``, as it came."""

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
            folder, names = json.loads(self.spool.read(size))
            for start in range(0, max(1, len(names)), _NAMES):
                line = {
                    "r": "folder",
                    "n": 0,
                    "d": folder,
                    "e": names[start : start + _NAMES],
                    "first": start == 0,
                    "last": start + _NAMES >= len(names),
                }
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
        events = ijson.parse(body, use_float=False)
        if next(events)[1] != "start_map":
            raise ParseError("the body must be a JSON object, in braces")
        for prefix, event, value in events:
            if event != "map_key" or prefix:
                continue
            if value == "listing":
                _listing(events, report)
            else:
                found[value] = _value(events)
    except ijson.IncompleteJSONError:
        raise ParseError("the body is not JSON: it ends too early") from None
    except (ijson.JSONError, StopIteration, UnicodeDecodeError) as error:
        raise ParseError(f"the body is not JSON: {error}") from None
    for name in ("returncode", "host", "log", "timestamp"):
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


def _value(events: Any) -> Any:
    """The next value of the stream, whole."""
    builder = ijson.ObjectBuilder()
    depth = 0
    for _, event, value in events:
        builder.event(event, value)
        depth += event in ("start_map", "start_array")
        depth -= event in ("end_map", "end_array")
        if depth == 0:
            break
    return builder.value


def _listing(events: Any, report: Report) -> None:
    """{directory: [{name, st_mode, st_size...}]}, a folder at a time; null is none."""
    event = next(events)[1]
    if event == "null":
        return
    if event != "start_map":
        raise InvalidInput(
            "listing must be an object: {directory: [{name, st_mode, st_size...}]}", field="listing"
        )
    report.listing = True
    for _, event, value in events:
        if event == "end_map":
            return
        if event != "map_key":
            continue
        names = _names(_value(events), value)
        report.names += len(names)
        text = json.dumps([value, names], separators=(",", ":")).encode()
        report.spool.seek(0, 2)
        report.folders.append((len(value), report.spool.tell(), len(text)))
        report.spool.write(text)


def _names(entries: Any, folder: str) -> list[list[Any]]:
    """[name, mode, size, mtime, nlink, uid, gid, atime, ctime] of each."""
    problem = InvalidInput(
        f"listing: {folder[:200]!r} must have a list of objects with name, st_mode and st_size",
        field="listing",
    )
    if not isinstance(entries, list):
        raise problem
    found = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise problem
        try:
            mode = int(entry.get("st_mode") or 0)
            size, mtime, nlink, uid, gid, atime, ctime = (int(entry.get(name) or 0) for name in _STATS)
        except (TypeError, ValueError, OverflowError):
            raise problem from None
        found.append([entry["name"], mode, size, mtime, nlink, uid, gid, atime, ctime])
    return found


def _text(value: Any) -> str:
    """Text as it is, anything else as JSON: a host may be a nested list."""
    text = value if isinstance(value, str) else json.dumps(value, default=_plain)
    return text.replace("\0", "")[:_LOG_MOST]


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else str(value)
