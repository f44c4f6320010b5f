"""A request for a log -> status, headers, body. Shared by every family's log route; knows no web framework.

Parameters (all optional):
    stream=stdout|stderr   default: all of stdout, then all of stderr
    attempt=n              from 1 on; negative counts from the end; default the last one
    tail=n                 the last n bytes of each stream only
    offset=n [&wait=s]     what follows byte n of one stream; waits up to s (30) seconds for it to come
    follow=1 [&raw=1]      goes on until the run ends: server-sent events, or plain text
and the header Range: bytes=a-b (one stream). Left-out output is one line in whole reads and when following;
ranges and ``offset`` give real bytes only. Of output that retention has deleted every read is one line that
says so, with X-Log-Pruned; its followers get a gap. Must not import Django views, services or claiming.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from workers.logs import events, following, store
from workers.models import Run
from workers.vocabulary.errors import InvalidInput, NotFound
from workers.vocabulary.specs import DEFAULT_LOG_HEAD, DEFAULT_LOG_TAIL, MIB
from workers.vocabulary.states import Reason

Answer = tuple[int, dict[str, str], Iterator[bytes]]

HEADERS: Final = {
    "Content-Type": "text/plain; charset=utf-8",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",
    "Cache-Control": "no-store",
}
#: After these ends the node could not ship what it still had.
_CUT_OFF: Final = frozenset({Reason.UNREACHABLE, Reason.NODE_GONE})
_CUT_OFF_LINE: Final = b"\n[... the node was lost: output after this may not have been saved ...]\n"
PRUNED: Final = {"X-Log-Pruned": "true"}


@dataclass(frozen=True)
class Question:
    """The parameters, checked."""

    stream: int | None
    attempt: int | None
    tail: int | None
    offset: int | None
    wait: float
    follow: bool
    raw: bool

    @classmethod
    def parse(cls, params: Mapping[str, str]) -> Question:
        """Raises InvalidInput, naming the parameter, its value and what is allowed."""
        stream = params.get("stream") or None
        if stream is not None and stream not in store.STREAMS:
            raise InvalidInput(f"stream is {stream[:40]!r}: use stdout or stderr", field="stream")
        attempt = _integer(params, "attempt", -(2**31), 2**31 - 1)
        if attempt == 0:
            raise InvalidInput("attempt is 0: the first attempt is 1, the last one -1", field="attempt")
        offset = _integer(params, "offset", 0, store.END)
        if offset is not None and stream is None:
            raise InvalidInput("offset needs one stream: add stream=stdout or stream=stderr", field="stream")
        wait = params.get("wait") or "0"
        if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", wait):
            raise InvalidInput(f"wait is {wait[:40]!r}: use seconds from 0 to 30", field="wait")
        return cls(
            stream=store.STREAMS[stream] if stream else None,
            attempt=attempt,
            tail=_integer(params, "tail", 0, store.END),
            offset=offset,
            wait=float(wait),
            follow=_flag(params, "follow"),
            raw=_flag(params, "raw"),
        )


def _integer(params: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = params.get(name) or ""
    if not text:
        return None
    if not re.fullmatch(r"-?\d{1,19}", text) or not least <= int(text) <= most:
        raise InvalidInput(f"{name} is {text[:40]!r}: use a whole number from {least} to {most}", field=name)
    return int(text)


def _flag(params: Mapping[str, str], name: str) -> bool:
    text = (params.get(name) or "0").lower()
    if text not in ("0", "1", "true", "false"):
        raise InvalidInput(f"{name} is {text[:40]!r}: use 0 or 1", field=name)
    return text in ("1", "true")


class Body:
    """A body that gives back its place in the budget, also when it was never begun."""

    def __init__(self, pieces: Iterator[bytes], at_end: Callable[[], None]) -> None:
        self._pieces = pieces
        self._at_end: Callable[[], None] | None = at_end

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """The server calls it when the body has been sent or the client has gone."""
        at_end, self._at_end = self._at_end, None
        if at_end is not None:
            at_end()
            close = getattr(self._pieces, "close", None)
            if close is not None:
                close()

    def __del__(self) -> None:
        self.close()


def respond(
    params: Mapping[str, str],
    headers: Mapping[str, str],
    run: Run,
    *,
    sse: bool = False,
    deleted: Callable[[], str],
) -> Answer:
    """The answer to one request. ``headers`` is looked up without regard to case by the caller's mapping.

    ``sse``: follow=1 is answered with server-sent events; else only when Accept asks for them. ``deleted``:
    makes the line that stands for output of this run which retention has deleted. The iterator has to be
    closed when it is not used up. Raises InvalidInput, NotFound, Unavailable.
    """
    question = Question.parse(params)
    attempt = _attempt(question, run)
    log = {**HEADERS, "X-Log-Attempt": str(attempt)}
    if question.follow:
        sse = sse or "text/event-stream" in headers.get("Accept", "")
        return _follow(question, headers, run, attempt, sse, deleted)
    if lost := _lost(run, attempt, question.stream):
        if question.stream is not None and question.offset is not None:
            end = lost[question.stream]
            log |= {"X-Log-Offset": str(max(end, question.offset)), "X-Log-Complete": "true"}
            if question.offset >= end:  # nothing that this reader has not had
                return 200, log | PRUNED, iter(())
        return 200, log | PRUNED, iter([deleted().encode()])
    if question.stream is not None:
        if question.offset is not None:
            return _poll(question.stream, question.offset, question.wait, run, attempt, log)
        log["Accept-Ranges"] = "bytes"
    wanted = headers.get("Range", "")
    if wanted.startswith("bytes="):
        if question.stream is None:
            raise InvalidInput("Range needs one stream: add stream=stdout or stream=stderr", field="stream")
        return _range(question.stream, wanted, run, attempt, log)
    return 200, log, _whole(question, run, attempt)


def _attempt(question: Question, run: Run) -> int:
    """The number of the attempt that is asked for; 0 while there is none."""
    if question.attempt is None:
        return run.attempt
    number = question.attempt if question.attempt > 0 else run.attempt + 1 + question.attempt
    if not 1 <= number <= run.attempt:
        raise NotFound(f"run {run.pk} has no attempt {question.attempt}: it has had {run.attempt}")
    return number


def _lost(run: Run, attempt: int, stream: int | None) -> dict[int, int]:
    """{stream: bytes that retention has deleted} of what is asked for; empty: nothing."""
    found = store.pruned(run.pk, attempt) if run.log_pruned_at is not None else {}
    return found if any(found.values() if stream is None else [found.get(stream, 0)]) else {}


def gap_line(run: Run) -> Callable[[int], bytes]:
    """Makes the line that stands where output was left out."""
    limit = int(run.spec.get("log_head", DEFAULT_LOG_HEAD)) + int(run.spec.get("log_tail", DEFAULT_LOG_TAIL))
    return lambda length: (
        f"\n[... {length} bytes left out: output over the limit of {limit / MIB:g} MiB ...]\n".encode()
    )


def _whole(question: Question, run: Run, attempt: int) -> Iterator[bytes]:
    reason = following.status(run.pk, attempt).reason
    ends = store.size(run.pk, attempt)
    store.release()
    streams = list(store.NAMES) if question.stream is None else [question.stream]
    starts = {each: 0 if question.tail is None else max(0, ends[each] - question.tail) for each in streams}
    pieces = (
        store.read(run.pk, attempt, each, starts[each], ends[each], gap=gap_line(run)) for each in streams
    )
    return chain(chain.from_iterable(pieces), [_CUT_OFF_LINE] if reason in _CUT_OFF else [])


def _poll(stream: int, offset: int, wait: float, run: Run, attempt: int, log: dict[str, str]) -> Answer:
    if wait > 0:
        following.budget.take()
        try:
            end, complete = following.wait_for(run.pk, attempt, stream, offset, wait)
        finally:
            following.budget.give_back()
    else:
        end, complete = following.wait_for(run.pk, attempt, stream, offset, 0)
    store.release()
    log |= {"X-Log-Offset": str(max(end, offset)), "X-Log-Complete": "true" if complete else "false"}
    return 200, log, store.read(run.pk, attempt, stream, offset, end)


def _range(stream: int, wanted: str, run: Run, attempt: int, log: dict[str, str]) -> Answer:
    match = re.fullmatch(r"bytes=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", wanted)
    if match is None or not (match[1] or match[2]):
        # Several ranges, or no range at all: HTTP lets us answer with the whole.
        return 200, log, store.read(run.pk, attempt, stream, gap=gap_line(run))
    complete = following.status(run.pk, attempt).complete
    total = store.size(run.pk, attempt)[stream]
    if match[1]:
        start, end = int(match[1]), min(int(match[2]) + 1 if match[2] else total, total)
    else:
        start, end = max(0, total - int(match[2])), total
    start, end = store.contiguous(run.pk, attempt, stream, start, end)
    store.release()
    if start >= end:
        log["Content-Range"] = f"bytes */{total}"
        text = f"{wanted[:60]}: nothing is stored there; {store.NAMES[stream]} has {total} bytes\n"
        return 416, log, iter([text.encode()])
    # A server may answer with a part of the range: where the middle was left out, the first part that exists.
    log |= {
        "Content-Range": f"bytes {start}-{end - 1}/{total if complete else '*'}",
        "Content-Length": str(end - start),
    }
    return 206, log, store.read(run.pk, attempt, stream, start, end)


def _follow(
    question: Question,
    headers: Mapping[str, str],
    run: Run,
    attempt: int,
    sse: bool,
    deleted: Callable[[], str],
) -> Answer:
    last = headers.get("Last-Event-ID", "") if sse else ""
    if events.is_end(last):
        return 204, {"Cache-Control": "no-store"}, iter(())  # tells a browser's EventSource to stop asking
    place = events.place(last)
    if (
        place is None
        or not 0 <= place.attempt <= run.attempt
        or (question.attempt and place.attempt != attempt)
    ):
        ends = store.size(run.pk, attempt) if question.tail is not None else {}
        starts = {stream: max(0, end - (question.tail or 0)) for stream, end in ends.items()}
        if question.stream is not None and question.offset is not None:
            starts = {question.stream: question.offset}
        place = following.Place(attempt, starts)
    log = {**HEADERS, "X-Log-Attempt": str(place.attempt)}
    if _lost(run, place.attempt, question.stream):
        log |= PRUNED
    following.budget.take()
    coming = following.follow(run.pk, place, question.stream, pinned=question.attempt is not None)
    if sse:
        log["Content-Type"] = "text/event-stream; charset=utf-8"
        pieces = events.stream(coming, raw=question.raw)
    else:
        pieces = _text(coming, gap_line(run), deleted)
    return 200, log, Body(pieces, following.budget.give_back)


def _text(
    coming: Iterator[following.Event], gap: Callable[[int], bytes], deleted: Callable[[], str]
) -> Iterator[bytes]:
    told = 0  # the attempt of which its deletion has been told: one line for both streams
    for event in coming:
        match event:
            case following.Output():
                yield event.data
            case following.Gap(pruned=True):
                yield deleted().encode() if told != event.place.attempt else b""
                told = event.place.attempt
            case following.Gap():
                yield gap(event.length)
            case following.NextAttempt() if event.place.attempt > 1:
                yield f"\n[... attempt {event.place.attempt} ...]\n".encode()
            case _:
                yield b""  # sends nothing, but lets the server notice that the client has gone
