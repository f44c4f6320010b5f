"""Followed output as server-sent events. Pure: no database, no Django.

    id: <attempt>:<next offset of stdout>:<of stderr>
    log      {"stream", "offset", "text"}, with raw=1 {"stream", "offset", "base64"}
    gap      {"stream", "offset", "bytes"}: output that was left out
    attempt  {"attempt"}: another attempt starts
    end      {"state", "exit_code", "attempt"}: nothing follows

A client that reconnects sends the last id as Last-Event-ID and goes on there.
"""

from __future__ import annotations

import base64
import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from workers.logs import following
from workers.logs.capture import STDERR, STDOUT

_STREAMS = {STDOUT: "stdout", STDERR: "stderr"}


def place(event_id: str) -> following.Place | None:
    """Where an event's id points to; None when it is not one of ours."""
    match = re.fullmatch(r"(\d{1,9}):(\d{1,18}):(\d{1,18})", event_id)
    return following.Place(int(match[1]), {STDOUT: int(match[2]), STDERR: int(match[3])}) if match else None


def is_end(event_id: str) -> bool:
    """True for the id of an ``end`` event."""
    return event_id.endswith(":end")


def stream(coming: Iterator[following.Event], *, raw: bool = False) -> Iterator[bytes]:
    """Renders events. Text is UTF-8; a character that is cut by a chunk is sent whole with its last byte."""
    yield b"retry: 2000\n\n"
    text = _Text()
    at = following.Place(0)
    for event in coming:
        match event:
            case following.Output() if raw:
                coded = base64.b64encode(event.data).decode()
                yield _event("log", event.place, _in(event.stream, event.offset, base64=coded))
            case following.Output():
                offset, decoded = text.decode(event)
                if decoded:
                    yield _event("log", text.safe(event.place), _in(event.stream, offset, text=decoded))
            case following.Gap():
                yield from _rest(text, at, [event.stream])
                yield _event(
                    "gap", text.safe(event.place), _in(event.stream, event.offset, bytes=event.length)
                )
            case following.NextAttempt():
                yield from _rest(text, at, _STREAMS)
                yield _event("attempt", event.place, {"attempt": event.place.attempt})
            case following.End():
                yield from _rest(text, at, _STREAMS)
                end = {"state": event.state, "exit_code": event.exit_code, "attempt": event.place.attempt}
                yield _event("end", event.place, end, mark=":end")
            case following.Beat():
                yield b": beat\n\n"
        if not isinstance(event, following.Beat):
            at = event.place


def _rest(text: _Text, at: following.Place, streams: Iterable[int]) -> Iterator[bytes]:
    """Bytes of characters that will never be complete."""
    for each in streams:
        offset = text.safe(at).offsets.get(each, 0)
        decoded = text.flush(each)
        if decoded:
            yield _event("log", text.safe(at), _in(each, offset, text=decoded))


def _in(stream: int, offset: int, **more: Any) -> dict[str, Any]:
    return {"stream": _STREAMS[stream], "offset": offset, **more}


def _event(kind: str, at: following.Place, data: dict[str, Any], mark: str = "") -> bytes:
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    name = f"{at.attempt}:{at.offsets.get(STDOUT, 0)}:{at.offsets.get(STDERR, 0)}{mark}"
    return f"id: {name}\nevent: {kind}\ndata: {body}\n\n".encode()


class _Text:
    """Decodes both streams piece by piece; bytes that are not UTF-8 become the replacement character."""

    def __init__(self) -> None:
        self._decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in _STREAMS}

    def _waiting(self, stream: int) -> int:
        """How many bytes of a character that is not complete yet are kept."""
        return len(self._decoders[stream].getstate()[0])

    def decode(self, event: following.Output) -> tuple[int, str]:
        """Returns (offset of the first character's first byte, text)."""
        offset = event.offset - self._waiting(event.stream)
        return offset, self._decoders[event.stream].decode(event.data)

    def flush(self, stream: int) -> str:
        """What is kept, as replacement characters."""
        return self._decoders[stream].decode(b"", final=True)

    def safe(self, at: following.Place) -> following.Place:
        """The place from which a reconnecting client gets what is kept here once more."""
        offsets = {stream: max(0, offset - self._waiting(stream)) for stream, offset in at.offsets.items()}
        return following.Place(at.attempt, offsets)
