"""Followed output as server-sent events: what a browser's EventSource or curl sees."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from workers.logs import events
from workers.logs.following import Beat, End, Event, Gap, NextAttempt, Output, Place

STDOUT, STDERR = 1, 2


def output(data: bytes, offset: int, stream: int = STDOUT, other: int = 0, attempt: int = 1) -> Output:
    end = offset + len(data)
    offsets = {STDOUT: end, STDERR: other} if stream == STDOUT else {STDOUT: other, STDERR: end}
    return Output(Place(attempt, offsets), stream, offset, data)


def sent(coming: Iterable[Event], *, raw: bool = False) -> Iterator[tuple[str, str, dict[str, object]]]:
    """(id, event, data) of each event, parsed by the rules of the event stream format."""
    text = b"".join(events.stream(iter(coming), raw=raw)).decode()
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "data" in fields:
            yield fields["id"], fields["event"], json.loads(fields["data"])


def test_each_kind_of_event_has_its_documented_form() -> None:
    coming: list[Event] = [
        output(b"one\ntwo", 0),
        output(b"oops", 0, STDERR, other=7),
        Gap(Place(1, {STDOUT: 100, STDERR: 4}), STDOUT, 7, 93),
        NextAttempt(Place(2, {STDOUT: 0, STDERR: 0})),
        output(b"again", 0, attempt=2),
        End(Place(2, {STDOUT: 5, STDERR: 0}), "SUCCEEDED", 0),
    ]

    assert list(sent(coming)) == [
        ("1:7:0", "log", {"stream": "stdout", "offset": 0, "text": "one\ntwo"}),
        ("1:7:4", "log", {"stream": "stderr", "offset": 0, "text": "oops"}),
        ("1:100:4", "gap", {"stream": "stdout", "offset": 7, "bytes": 93}),
        ("2:0:0", "attempt", {"attempt": 2}),
        ("2:5:0", "log", {"stream": "stdout", "offset": 0, "text": "again"}),
        ("2:5:0:end", "end", {"state": "SUCCEEDED", "exit_code": 0, "attempt": 2}),
    ]


def test_a_beat_is_a_comment() -> None:
    assert list(events.stream(iter([Beat()]))) == [b"retry: 2000\n\n", b": beat\n\n"]


def test_raw_bytes_come_in_base64() -> None:
    ((_, kind, data),) = sent([output(b"\xff\x00", 0)], raw=True)

    assert kind == "log"
    assert base64.b64decode(str(data["base64"])) == b"\xff\x00"


def test_a_cut_character_waits_and_a_reconnect_gets_it_again() -> None:
    euro = "€".encode()

    assert list(sent([output(b"a" + euro[:2], 0), output(euro[2:] + b"b", 3)])) == [
        ("1:1:0", "log", {"stream": "stdout", "offset": 0, "text": "a"}),
        ("1:5:0", "log", {"stream": "stdout", "offset": 1, "text": "€b"}),
    ]


def test_a_character_that_never_ends_is_replaced() -> None:
    end = End(Place(1, {STDOUT: 2, STDERR: 0}), "FAILED", 1)

    assert list(sent([output(b"a\xe2", 0), end]))[1:] == [
        ("1:2:0", "log", {"stream": "stdout", "offset": 1, "text": "\ufffd"}),
        ("1:2:0:end", "end", {"state": "FAILED", "exit_code": 1, "attempt": 1}),
    ]


@given(data=st.binary(max_size=60), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_text_in_pieces_is_the_text(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    coming: list[Event] = [output(data[a:b], a) for a, b in pairwise(places) if b > a]
    coming.append(End(Place(1, {STDOUT: len(data), STDERR: 0}), "SUCCEEDED", 0))

    text = "".join(str(found["text"]) for _, kind, found in sent(coming) if kind == "log")

    assert text == data.decode(errors="replace")


def test_ids_lead_back_to_places() -> None:
    assert events.place("3:17:4") == Place(3, {STDOUT: 17, STDERR: 4})
    assert events.is_end("3:17:4:end")
    for strange in ("", "3:17", "a:b:c", "1:2:3:end", "-1:0:0", "1:2:3\n"):
        assert events.place(strange) is None
