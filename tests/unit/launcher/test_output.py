"""The cap of the output: head and tail are kept, the middle is given back to the disk.

Every test runs in each mode of isolation that this user can have.
"""

from __future__ import annotations

from dataclasses import replace

from tests.unit.launcher.launching import Node, eventually, node
from workers.launcher import control

__all__ = ["node"]  # the fixture


CAP = 200_000  # bytes of head and of tail


def test_head_and_tail_are_kept_and_the_middle_is_given_back(node: Node) -> None:
    request = node.request(
        "echo first; head -c 40000000 /dev/zero | tr '\\0' x; echo last", head_bytes=CAP, tail_bytes=CAP
    )
    ended = node.finish(request)
    path = node.client.output_path(request.name, "stdout")
    size = 40_000_000 + len("first\nlast\n")
    assert (ended.code, ended.uncapped) == (0, False)
    assert path.stat().st_size == ended.stdout.size == size
    assert ended.stdout.hole is not None
    start, end = ended.stdout.hole
    assert start == CAP
    assert CAP <= size - end <= CAP + 100_000
    assert path.stat().st_blocks * 512 < 1_000_000
    data = path.read_bytes()
    assert data[:start] == b"first\n" + b"x" * (CAP - 6)
    assert data[end:] == b"x" * (size - end - 5) + b"last\n"
    assert ended.stderr.hole is None


def test_the_cap_works_while_the_run_writes(node: Node) -> None:
    request = node.request(
        "head -c 20000000 /dev/zero | tr '\\0' x; echo written >&2; sleep 60", head_bytes=CAP, tail_bytes=CAP
    )
    node.client.start(request)
    eventually(lambda: "written" in node.text(request.name, "stderr"), "it did not write")
    path = node.client.output_path(request.name, "stdout")
    eventually(lambda: path.stat().st_blocks * 512 < 1_000_000, "the blocks were not given back")
    assert node.state(request.name).state == control.RUNNING


def test_a_reader_never_takes_a_hole_for_output(node: Node) -> None:
    line = "abcdefghijklmnopqrstuvwxyz012345678"
    request = node.request(f"yes {line} | head -n 1000000", head_bytes=CAP, tail_bytes=CAP)
    node.client.start(request)
    offset, read, skipped = 0, 0, 0
    while True:
        ended = node.state(request.name).state == control.EXITED
        data, at = node.client.read_output(request.name, "stdout", offset, 65536)
        skipped += at - offset
        period = (line + "\n").encode()
        turned = at % len(period)
        assert data == (period * (len(data) // len(period) + 2))[turned : turned + len(data)]
        read, offset = read + len(data), at + len(data)
        if ended and not data:
            break
    assert read + skipped == 36_000_000


def test_without_a_cap_everything_is_kept(node: Node) -> None:
    ended, text = node.run("head -c 3000000 /dev/zero | tr '\\0' x")
    assert ended.stdout == type(ended.stdout)(3_000_000, None)
    assert text == "x" * 3_000_000


def test_a_file_that_is_kept_whole_beside_one_that_is_not(node: Node) -> None:
    """Catches a report from which the middle is missing."""
    script = "head -c 4000000 /dev/zero | tr '\\0' x; head -c 4000000 /dev/zero | tr '\\0' y >&2"
    request = replace(node.request(script, head_bytes=100_000, tail_bytes=100_000), whole=("stdout",))
    ended = node.finish(request)
    assert (ended.stdout.size, ended.stdout.hole) == (4_000_000, None)
    assert node.text(request.name) == "x" * 4_000_000
    assert ended.stderr.size == 4_000_000
    assert ended.stderr.hole is not None or ended.uncapped
