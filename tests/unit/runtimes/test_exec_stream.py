"""The wrapper's lines are found wherever they are torn; no output is lost or taken for one."""

from __future__ import annotations

import random

import pytest

from workers.runtimes.exec.stream import ExecStream, Lines

WORD = b"\x1eabab"


class Heard:
    """Notes what a stream tells."""

    def __init__(self) -> None:
        self.data = b""
        self.lines: list[str] = []

    def output(self, data: bytes) -> None:
        self.data += data

    def line(self, letter: str, words: list[str]) -> None:
        self.lines.append(" ".join([letter, *words]))


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("seed", range(20))
def test_pieces_of_any_size(seed: int) -> None:
    dice = random.Random(seed)
    body = [
        b"a\x1e",
        WORD + b"S 7 1 /tmp/.x\n",
        b"\x1eab\x1eaba\n",
        WORD + b"D\n",
        b"\x1e\x1e\n",
        WORD + b"E 3\n",
    ]
    whole = b""
    for line in body:
        at = dice.randrange(len(line))
        whole += frame(1, line[:at]) + frame(1, line[at:])
    heard = Heard()
    stream = ExecStream(heard, Lines(WORD))
    while whole:
        size = dice.randint(1, 9)
        stream.feed(whole[:size])
        whole = whole[size:]
    assert heard.data == b"a\x1e\x1eab\x1eaba\n\x1e\x1e\n"
    assert heard.lines == ["S 7 1 /tmp/.x", "D", "E 3"]


def test_what_is_known_already_is_left_out() -> None:
    heard = Heard()
    stream = ExecStream(heard, Lines(WORD))
    stream.skip = 5
    stream.feed(frame(1, b"123") + frame(2, b"sh: no") + frame(1, b"4567" + WORD + b"A 0 1\n8"))
    assert (heard.data, heard.lines, stream.words) == (b"678", ["A 0 1"], b"sh: no")
