"""Reading the output files of a process while they grow, are punched and readers come and go."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.launcher.kernel import punch_hole
from workers.logs.capture import BUDGET, CHUNK, STDERR, STDOUT, Chunk, Shipment, SpoolReader
from workers.logs.redaction import Redactor

KIB = 1024
HEAD, TAIL = 64 * KIB, 128 * KIB


class Spool:
    """The two files as launcher and command make them, and a store as the database keeps it."""

    def __init__(self, folder: Path, head: int = HEAD, tail: int = TAIL) -> None:
        self.head, self.tail = head, tail
        self.paths = {STDOUT: folder / "stdout", STDERR: folder / "stderr"}
        self.truth = {STDOUT: bytearray(), STDERR: bytearray()}
        self.chunks: dict[int, dict[int, bytes]] = {STDOUT: {}, STDERR: {}}
        for path in self.paths.values():
            path.touch()

    def write(self, data: bytes, stream: int = STDOUT) -> None:
        with self.paths[stream].open("ab") as file:
            file.write(data)
        self.truth[stream] += data

    def punch(self, stream: int = STDOUT) -> None:
        """As the shim does it, without its slack."""
        with self.paths[stream].open("r+b") as file:
            end = os.fstat(file.fileno()).st_size - self.tail
            if end > self.head:
                punch_hole(file.fileno(), self.head, end)

    def reader(
        self, redactor: Redactor | None = None, missing: Mapping[int, str] | None = None
    ) -> SpoolReader:
        """A first reader, or one that adopts."""
        shipped = {
            stream: max((offset + len(data) for offset, data in chunks.items()), default=0)
            for stream, chunks in self.chunks.items()
        }
        return SpoolReader(
            self.paths[STDOUT],
            self.paths[STDERR],
            shipped,
            self.head,
            self.tail,
            redactor,
            lambda: missing or {},
        )

    def store(self, shipment: Shipment) -> None:
        for chunk in shipment.chunks:
            kept = self.chunks[chunk.stream].get(chunk.offset, b"")
            self.chunks[chunk.stream][chunk.offset] = max(kept, chunk.data, key=len)
        for stale in shipment.stale:
            chunks = self.chunks[stale.stream]
            for offset in [
                at for at, data in chunks.items() if stale.start <= at and at + len(data) <= stale.end
            ]:
                del chunks[offset]

    def ship(self, reader: SpoolReader, *, final: bool = False) -> Shipment:
        while True:
            shipment = reader.pending(final)
            self.store(shipment)
            reader.mark(shipment)
            if not shipment.more:
                return shipment

    def stored(self, stream: int = STDOUT) -> bytearray:
        """All stored bytes at their offsets, ``~`` where there is none."""
        chunks = self.chunks[stream]
        out = bytearray(b"~" * max((offset + len(data) for offset, data in chunks.items()), default=0))
        for offset, data in chunks.items():
            out[offset : offset + len(data)] = data
        return out


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def lines(first: int, count: int) -> bytes:
    return b"".join(b"line %09d\n" % number for number in range(first, first + count))


def test_output_is_shipped_as_it_comes(spool: Spool) -> None:
    reader = spool.reader()
    assert reader.pending().chunks == []

    spool.write(b"one\n")
    spool.write(b"oops\n", STDERR)
    shipment = reader.pending()
    assert shipment.chunks == [Chunk(STDOUT, 0, b"one\n"), Chunk(STDERR, 0, b"oops\n")]
    assert (shipment.log_bytes, shipment.truncated, shipment.more) == (9, False, False)
    reader.mark(shipment)

    spool.write(b"two\n")
    assert reader.pending(final=True).chunks == [Chunk(STDOUT, 4, b"two\n")]


def test_files_that_do_not_exist_yet_are_empty(tmp_path: Path) -> None:
    shipment = SpoolReader(tmp_path / "no", tmp_path / "none").pending(final=True)

    assert (shipment.chunks, shipment.log_bytes, shipment.truncated) == ([], 0, False)


def test_nothing_counts_as_shipped_before_mark(spool: Spool) -> None:
    reader = spool.reader()
    spool.write(b"one\n")
    reader.pending()
    spool.write(b"two\n")

    assert reader.pending().chunks == [Chunk(STDOUT, 0, b"one\ntwo\n")]


def test_chunks_and_shipments_are_bounded(tmp_path: Path) -> None:
    spool = Spool(tmp_path, head=8 * BUDGET, tail=BUDGET)
    spool.write(lines(0, (2 * BUDGET + CHUNK) // 15))
    spool.write(lines(0, (2 * BUDGET) // 15), STDERR)
    reader = spool.reader()

    shipment = reader.pending()

    assert max(len(chunk.data) for chunk in shipment.chunks) == CHUNK
    assert sum(len(chunk.data) for chunk in shipment.chunks) == 2 * BUDGET
    assert shipment.more
    spool.ship(reader)
    assert spool.stored() == spool.truth[STDOUT]
    assert spool.stored(STDERR) == spool.truth[STDERR]


def test_an_adopter_goes_on_where_the_store_ends(spool: Spool) -> None:
    spool.write(b"one\n")
    spool.ship(spool.reader())
    spool.write(b"two\n")

    assert spool.reader().pending(final=True).chunks == [Chunk(STDOUT, 4, b"two\n")]


def test_head_and_tail_remain_of_long_output(spool: Spool) -> None:
    reader = spool.reader()
    for step in range(20):
        spool.write(lines(step * 4000, 4000))
        spool.punch()
        shipment = spool.ship(reader)
    shipment = spool.ship(reader, final=True)

    truth, stored = spool.truth[STDOUT], spool.stored()
    assert shipment.truncated
    assert shipment.log_bytes == len(truth) == len(stored)
    assert stored[:HEAD] == truth[:HEAD]
    assert stored[-TAIL:] == truth[-TAIL:]
    assert b"\0" not in stored
    assert sum(map(len, spool.chunks[STDOUT].values())) <= HEAD + TAIL + 2 * CHUNK


def test_a_late_reader_skips_what_is_gone(spool: Spool) -> None:
    spool.write(lines(0, 100_000))
    spool.punch()

    shipment = spool.ship(spool.reader(), final=True)

    truth, stored = spool.truth[STDOUT], spool.stored()
    assert stored == truth[:HEAD] + b"~" * (len(truth) - HEAD - TAIL) + truth[-TAIL:]
    assert (shipment.log_bytes, shipment.truncated) == (len(truth), True)


def test_a_hole_of_anybody_else_is_a_gap_not_zeros(spool: Spool) -> None:
    spool.write(b"a" * 8192)
    os.truncate(spool.paths[STDOUT], 64 * KIB)
    with spool.paths[STDOUT].open("ab") as file:
        file.write(b"end\n")

    shipment = spool.ship(spool.reader(), final=True)

    assert shipment.truncated
    assert spool.chunks[STDOUT] == {0: b"a" * 8192, 64 * KIB: b"end\n"}


def test_zeros_that_the_command_wrote_are_kept(spool: Spool) -> None:
    spool.write(b"\0" * 10_000 + b"x")

    assert not spool.ship(spool.reader(), final=True).truncated
    assert spool.stored() == spool.truth[STDOUT]


def test_a_file_that_the_command_empties_is_joined_on(spool: Spool) -> None:
    reader = spool.reader()
    spool.write(b"before\n")
    spool.ship(reader)
    os.truncate(spool.paths[STDOUT], 0)
    with spool.paths[STDOUT].open("ab") as file:
        file.write(b"new\n")
    shipment = spool.ship(reader)
    assert shipment.truncated

    with spool.paths[STDOUT].open("ab") as file:
        file.write(b"last\n")
    shipment = spool.ship(spool.reader(), final=True)  # an adopter finds its place again

    assert spool.stored() == b"before\nnew\nlast\n"
    assert shipment.log_bytes == 16


def test_a_symbolic_link_is_not_followed(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"somebody's file")
    spool.paths[STDOUT].unlink()
    spool.paths[STDOUT].symlink_to(tmp_path / "target")

    with pytest.raises(OSError, match="symbolic"):
        spool.reader().pending()


def test_secrets_are_masked_across_chunks_and_shipments(tmp_path: Path) -> None:
    spool = Spool(tmp_path, head=4 * CHUNK, tail=CHUNK)
    redactor = Redactor([b"s3cret-token"])
    reader = spool.reader(redactor)
    spool.write(b"x" * (CHUNK - 5) + b"s3cret-token" + b"y" * 100 + b"s3cre")
    spool.ship(reader)
    assert spool.stored() == b"x" * (CHUNK - 5) + b"***" + b"y" * 100

    spool.write(b"t-token and more s3c")
    shipment = spool.ship(spool.reader(redactor), final=True)  # adopted: finds its place in the file

    assert spool.stored() == b"x" * (CHUNK - 5) + b"***" + b"y" * 100 + b"*** and more s3c"
    assert shipment.log_bytes == len(spool.stored())
    assert not shipment.truncated


def test_secrets_cut_by_the_cap_show_no_part(spool: Spool) -> None:
    secret = b"0123456789abcdef"
    spool.write(b"h" * (HEAD - 8) + secret + b"m" * 300_000 + secret + b"t" * (TAIL - 8))

    spool.ship(spool.reader(Redactor([secret])), final=True)

    (head, tail) = [data for _, data in sorted(spool.chunks[STDOUT].items())]
    assert head == b"h" * (HEAD - 8) + b"***"
    assert tail == b"***" + b"t" * (TAIL - 8)


def test_punching_while_reading_never_ships_zeros(spool: Spool) -> None:
    block = lines(0, 8000)

    def shim_and_command() -> None:
        while len(spool.truth[STDOUT]) < 48 * 1024 * KIB:
            spool.write(block)
            spool.punch()

    writer = threading.Thread(target=shim_and_command)
    writer.start()
    reader = spool.reader()
    zeros = 0
    while writer.is_alive():
        shipment = reader.pending()
        zeros += sum(chunk.data.count(0) for chunk in shipment.chunks)
        spool.store(shipment)
        reader.mark(shipment)
    writer.join()
    spool.ship(reader, final=True)

    truth, stored = spool.truth[STDOUT], spool.stored()
    assert zeros == 0
    assert stored[:HEAD] == truth[:HEAD]
    assert stored[-TAIL:] == truth[-TAIL:]
    assert all(truth[at : at + len(data)] == data for at, data in spool.chunks[STDOUT].items())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 3000)),
        st.tuples(st.just("ship"), st.just(0)),
        st.tuples(st.just("lose"), st.just(0)),  # committed, but the worker does not know
        st.tuples(st.just("fail"), st.just(0)),  # not committed
        st.tuples(st.just("punch"), st.just(0)),
        st.tuples(st.just("adopt"), st.just(0)),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(steps=steps, head=st.sampled_from([0, 4096, 9000]), tail=st.sampled_from([0, 4096, 7000]))
def test_whatever_happens_head_and_tail_are_the_truth(
    steps: list[tuple[str, int]], head: int, tail: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), head, tail)
        reader = spool.reader()
        for number, (step, count) in enumerate(steps):
            if step == "write":
                spool.write(bytes([97 + number]) * count)
            elif step == "ship":
                spool.ship(reader)
            elif step == "lose":
                spool.store(reader.pending())
            elif step == "fail":
                reader.pending()
            elif step == "punch":
                spool.punch()
            else:
                reader = spool.reader()
        shipment = spool.ship(reader, final=True)

        truth, stored = spool.truth[STDOUT], spool.stored()
        assert shipment.log_bytes == len(truth)
        assert all(mine in (truth[at], ord("~")) for at, mine in enumerate(stored))
        if len(truth) <= head + tail:
            assert stored == truth
            assert not shipment.truncated
        else:
            assert stored[:head] == truth[:head]
            assert stored[len(truth) - tail :] == truth[len(truth) - tail :]
            assert shipment.truncated


@pytest.mark.parametrize("redactor", [None, Redactor([b"secret"])])
@pytest.mark.parametrize("stored", range(0, 12, 3))
def test_what_found_no_space_is_told_at_the_end_once(
    spool: Spool, redactor: Redactor | None, stored: int
) -> None:
    """Catches a silent hole, and an adopter that stores the line, or everything before it, twice."""
    missing = {STDOUT: "\n[missing]\n"}
    spool.write(b"a secret one\n")
    first = spool.reader(redactor, missing)
    assert not spool.ship(first).truncated, "nobody is asked before the end"
    spool.ship(first, final=True)
    text = bytes(spool.stored())
    assert text == (b"a *** one\n" if redactor else b"a secret one\n") + b"\n[missing]\n"
    spool.chunks[STDOUT] = {0: text[: len(text) - stored]}  # as far as a worker came that died

    adopter = spool.reader(redactor, missing)
    spool.ship(adopter)
    assert bytes(spool.stored()) == text[: len(text) - stored]
    shipment = spool.ship(adopter, final=True)

    assert bytes(spool.stored()) == text
    assert (shipment.truncated, shipment.log_bytes) == (True, len(text))


def test_a_stream_whose_file_tells_itself_what_is_missing(spool: Spool) -> None:
    spool.write(b"one\n")
    shipment = spool.ship(spool.reader(None, {STDERR: ""}), final=True)
    assert (shipment.truncated, bytes(spool.stored()), spool.chunks[STDERR]) == (True, b"one\n", {})
