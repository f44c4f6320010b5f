"""Output of containers: HTTP taken apart, frames, what is read twice, what the engine loses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runtimes.container.output import Spool
from workers.runtimes.container.stream import CutError, LogStream


def stamp(number: int) -> bytes:
    return f"2026-01-01T00:00:{number // 1000:02}.{number % 1000:03}000000Z".encode()


def frame(stream: int, data: bytes, at: int | None = None) -> bytes:
    payload = data if at is None else stamp(at) + b" " + data
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


def chunked(data: bytes, size: int = 1000) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def spool(folder: Path, head: int = 10_000_000, tail: int = 10_000_000) -> Spool:
    return Spool(folder, head, tail)


def read(into: Spool, log: bytes) -> LogStream:
    into.query()
    stream = LogStream(into.take, chunked=True)
    stream.feed(chunked(log))
    return stream


def text(folder: Path) -> tuple[bytes, bytes]:
    files = [folder / name for name in ("stdout", "stderr")]
    out, err = (file.read_bytes() if file.exists() else b"" for file in files)
    return out, err


@given(cuts=st.lists(st.integers(1, 60), max_size=40), size=st.integers(1, 70))
def test_however_the_bytes_come(cuts: list[int], size: int) -> None:
    """Catches a parser that needs whole lines, chunks or frames at once."""
    found: list[tuple[int, bytes, bytes]] = []
    data = chunked(frame(1, b"one\n", 1) + frame(2, b"\x00\xff\n", 2) + frame(1, b"end", 3), size)
    stream = LogStream(found.extend, chunked=True)
    for cut in cuts:
        stream.feed(data[:cut])
        data = data[cut:]
    stream.feed(data)
    assert stream.ended
    assert [(number, piece) for number, _, piece in found] == [(1, b"one\n"), (2, b"\x00\xff\n"), (1, b"end")]


def test_the_live_stream_has_neither_chunks_nor_timestamps() -> None:
    found: list[tuple[int, bytes, bytes]] = []
    stream = LogStream(found.extend, attached=True)
    stream.feed(frame(2, b"x"))
    assert found == [(2, b"", b"x")]
    assert not stream.ended


@pytest.mark.parametrize(
    "answer",
    [
        b"zz\r\n",
        chunked(frame(3, b"error reading the log")),
        chunked(frame(1, b"short")),
    ],
)
def test_what_is_no_log_is_no_log(answer: bytes) -> None:
    with pytest.raises(CutError):
        LogStream(lambda frames: None, chunked=True).feed(answer)


def test_the_line_feed_that_the_engine_loses_after_a_long_line() -> None:
    """The engine's local log: pieces of 16 KiB, the last of them without its line feed."""
    found: list[tuple[int, bytes, bytes]] = []
    full = b"x" * 16384
    log = frame(1, full, 1) + frame(1, b"y", 1) + frame(1, b"next\n", 2)  # longer than the buffer
    log += frame(1, full, 3) + frame(1, b"", 3) + frame(1, b"last", 4)  # a multiple of the buffer
    LogStream(found.extend, chunked=True).feed(chunked(log))
    assert b"".join(piece for _, _, piece in found) == full + b"y\nnext\n" + full + b"\nlast"


def test_read_again_after_a_cut(tmp_path: Path) -> None:
    """Catches output that is lost or doubled: by the same worker, by the next one without a journal."""
    first = frame(1, b"a\n", 1) + frame(1, b"b\n", 1) + frame(2, b"E\n", 2)
    more = frame(1, b"b\n", 2) + frame(2, b"F\n", 3) + frame(1, b"c\n", 3)
    same = spool(tmp_path)
    read(same, first)
    assert text(tmp_path) == (b"a\nb\n", b"E\n")
    read(same, first + more)
    assert text(tmp_path) == (b"a\nb\nb\nc\n", b"E\nF\n")
    rest = frame(1, b"d\n", 3) + frame(1, b"d\n", 4)
    read(spool(tmp_path), first + more + rest)  # nothing was noted: counted by bytes
    assert text(tmp_path) == (b"a\nb\nb\nc\nd\nd\n", b"E\nF\n")


def test_the_journal_goes_on_although_the_beginning_is_gone(tmp_path: Path) -> None:
    """Catches bytes that are counted off from a log which the engine has cut off at its beginning."""
    one = spool(tmp_path)
    read(one, frame(1, b"a\n", 1) + frame(1, b"b\n", 2) + frame(1, b"c\n", 3))
    one.note()
    read(spool(tmp_path), frame(1, b"c\n", 3) + frame(1, b"d\n", 4))
    assert text(tmp_path)[0] == b"a\nb\nc\nd\n"
    two = spool(tmp_path)
    two.note()
    read(spool(tmp_path), frame(1, b"z\n", 9))
    assert text(tmp_path)[0] == b"a\nb\nc\nd\nz\n"


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    one = spool(tmp_path)
    log = frame(1, b"a\n", 5) + frame(1, b"b\n", 2) + frame(1, b"c\n", 3)
    read(one, log)
    assert one.query()["since"] is None
    read(one, log + frame(1, b"d\n", 4))
    assert text(tmp_path)[0] == b"a\nb\nc\nd\n"


def test_live_output_then_the_log(tmp_path: Path) -> None:
    """A live stream that was cut in the middle of a line goes on from the engine's log."""
    one = spool(tmp_path)
    live = LogStream(one.take, attached=True)
    live.feed(frame(1, b"one\ntw"))
    read(one, frame(1, b"one\n", 1) + frame(1, b"two\n", 2) + frame(1, b"three\n", 3))
    assert text(tmp_path)[0] == b"one\ntwo\nthree\n"


def test_the_middle_is_given_back_to_the_disk(tmp_path: Path) -> None:
    """Catches a spool that grows with what a container writes."""
    one = spool(tmp_path, head=65_536, tail=65_536)
    live = LogStream(one.take, attached=True)
    for _ in range(200):
        live.feed(frame(1, b"x" * 32_768))
    found = (tmp_path / "stdout").stat()
    assert found.st_size == 200 * 32_768
    assert found.st_blocks * 512 < 1_000_000


def test_one_writes_at_a_time(tmp_path: Path) -> None:
    one, other = spool(tmp_path), spool(tmp_path)
    assert one.lock()
    assert not other.lock()
    one.unlock()
    assert other.lock()
    other.unlock()


def test_what_init_says_when_the_command_is_missing(tmp_path: Path) -> None:
    one = spool(tmp_path)
    live = LogStream(one.take, attached=True)
    assert one.refusal_of_init() == ""
    live.feed(frame(2, b"[FATAL tini (7)] exec nope failed: No such file or directory\n"))
    assert one.refusal_of_init() == "nope: No such file or directory"
    live.feed(frame(1, b"it did run\n"))
    assert one.refusal_of_init() == ""
