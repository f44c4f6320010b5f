"""What a command prints is what is stored: byte for byte, while it runs and after it, up to a told cap."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from django.db import connection

from tests.support.cluster import Cluster
from tests.support.engine import output, run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants
from tests.support.waiting import limit, wait_until
from tests.support.watching import Again, Memory
from workers import services
from workers.logs import answers, following, store
from workers.logs.capture import CHUNK
from workers.models import Attempt
from workers.vocabulary.specs import DEFAULT_LOG_HEAD, DEFAULT_LOG_TAIL, MIB, ProcessSpec
from workers.vocabulary.states import State

STDOUT, STDERR = 1, 2


def read(run_id: int, **params: str) -> tuple[int, Mapping[str, str], bytes]:
    """What a client gets from the log route."""
    status, headers, body = answers.respond(params, {}, run(run_id), deleted=str)
    return status, headers, b"".join(body)


@pytest.mark.account
def test_every_byte_whatever_a_command_does(cluster: Cluster, account: Account) -> None:
    """On one node; each step says what it catches."""
    cluster.node()
    every_byte_is_kept(cluster, account)
    what_a_command_does_to_its_own_streams(cluster, account)


def test_output_while_it_runs_and_after_it(
    cluster: Cluster, account: Account, shared_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one node; each step says what it catches."""
    cluster.node()
    both_streams_are_whole_when_they_are_interleaved(account)
    children_write_into_the_same_log(account)
    a_cap_of_its_own(cluster, account)
    a_log_is_followed_while_it_is_written(cluster, account, shared_folder)
    a_follower_is_taken_along_to_the_next_attempt(account, shared_folder)
    following_a_flood(account)
    with monkeypatch.context() as patched:
        patched.setattr(following, "WAIT_S", 3600.0)
        a_long_poll_waits_for_the_next_byte(account, shared_folder)


# --- byte for byte ------------------------------------------------------------------------------------------


def every_byte_is_kept(cluster: Cluster, account: Account) -> None:
    """Catches: output that is decoded, translated, cut at a NUL or at a newline."""
    octal = "".join(f"\\{code:03o}" for code in range(256))
    binary = submit(account.tenant_id, f"printf '{octal}'; printf '{octal}' >&2")
    text = "𝄞 grün 漢字 עברית\r\n\u2028"
    unicode = submit(account.tenant_id, f"yes '{text}' | head -n 80000")
    nothing = submit(account.tenant_id, ":")
    no_newline = submit(account.tenant_id, "printf a; printf 'b\\n\\nc'")
    wait_final(binary, unicode, nothing, no_newline)
    assert output(binary) == output(binary, stream=STDERR) == bytes(range(256))
    # 1.4 MB: characters lie across the borders of chunks.
    assert output(unicode) == (text + "\n").encode() * 40_000
    assert output(nothing) == output(nothing, stream=STDERR) == b""
    assert output(no_newline) == b"ab\n\nc"
    assert read(nothing)[2] == b""
    sizes = {row.run_id: row.log_bytes for row in Attempt.objects.all()}
    assert sizes == {binary: 512, unicode: len(text.encode()) * 40_000 + 40_000, nothing: 0, no_newline: 5}
    assert not Attempt.objects.filter(log_truncated=True).exists()
    assert_invariants(cluster)


def both_streams_are_whole_when_they_are_interleaved(account: Account) -> None:
    """Catches: lines that move from one stream to the other, get lost or change places."""
    run_id = submit(
        account.tenant_id, "i=0; while test $i -lt 3000; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    )
    wait_final(run_id)
    assert output(run_id).decode().splitlines() == [f"out {number}" for number in range(3000)]
    assert output(run_id, stream=STDERR).decode().splitlines() == [f"err {number}" for number in range(3000)]
    whole = read(run_id)[2]
    assert whole == output(run_id) + output(run_id, stream=STDERR)


def children_write_into_the_same_log(account: Account) -> None:
    """Catches: output that is captured from the main process only, or overwritten by a second writer."""
    each = "i=0; while test $i -lt 500; do echo $0 $i; i=$((i+1)); done"
    run_id = submit(account.tenant_id, f"for n in 1 2 3 4; do setsid sh -c '{each}' $n & done; wait")
    wait_final(run_id)
    told = output(run_id).decode().splitlines()
    assert sorted(told) == sorted(f"{name} {number}" for name in range(1, 5) for number in range(500))
    for name in range(1, 5):
        assert [line for line in told if line.startswith(f"{name} ")] == [
            f"{name} {number}" for number in range(500)
        ]


def what_a_command_does_to_its_own_streams(cluster: Cluster, account: Account) -> None:
    """Catches: a closed stream that is taken for the end, a child that is waited for, an emptied log."""
    closed = submit(account.tenant_id, "echo before; exec >&- 2>&-; sleep 0.5; echo never; exit 4")
    orphan = submit(account.tenant_id, "(sleep 100000; echo late) & echo now; exit 5")
    reopened = submit(
        account.tenant_id, "echo one; echo two > /dev/stdout; echo three >> /dev/stderr; exit 6"
    )
    ends = {item.pk: item for item in wait_final(closed, orphan, reopened)}
    assert (ends[closed].exit_code, output(closed)) == (4, b"before\n")
    assert (ends[orphan].exit_code, output(orphan)) == (5, b"now\n")
    assert (ends[reopened].exit_code, output(reopened)) == (6, b"one\ntwo\n")
    assert output(reopened, stream=STDERR) == b"three\n"
    assert_invariants(cluster)


# --- huge ---------------------------------------------------------------------------------------------------


def spool_bytes(node: Path, run_id: int) -> int:
    """What the output files of a run take on the disk now; holes take nothing."""
    total = 0
    for path in (node / "launcher" / "runs" / f"{run_id}-1").glob("std*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


@pytest.mark.timeout(400)
def test_three_hundred_megabytes(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches: a disk that fills up, a worker that swells, a command that is stopped for what it prints.

    Kept are the first 16 and the last 48 MiB; the middle is left out, and said so. Watched while it runs: the
    spool stays near the cap (seen: 84 to 92 MiB on the disk), the worker grows once, by what its buffers need
    (seen: 110 to 190 MiB, and no more through 2.4 GB).
    """
    worker, node = cluster.node(), cluster.folder / "n1"
    memory = Memory()
    memory.look([worker.pid])
    # 30 million lines of 10 bytes. After each million it waits until the spool is near its cap again: how
    # quickly that happens is the machine's, that it does is ours.
    each = f"seq $s $((s+999999)); s=$((s+1000000)); touch {shared_folder}/asks-$s"
    wait = f"until test -e {shared_folder}/goes-$s; do sleep 0.02; done"
    script = f"s=100000000; while test $s -lt 130000000; do {each}; {wait}; done"
    run_id = submit(account.tenant_id, script, mem_mb=64)
    disk: list[int] = []

    def watch() -> None:
        disk.append(spool_bytes(node, run_id))
        memory.look([worker.pid])
        if disk[-1] < DEFAULT_LOG_HEAD + DEFAULT_LOG_TAIL + 48 * MIB:
            for asks in shared_folder.glob("asks-*"):
                asks.rename(asks.with_name(asks.name.replace("asks", "goes")))

    with Again(watch, 0.02):
        (ended,) = wait_final(run_id, timeout_s=300)
    assert (ended.state, ended.exit_code) == (State.SUCCEEDED, 0)
    attempt = Attempt.objects.get(run_id=run_id)
    assert (attempt.log_bytes, attempt.log_truncated) == (300_000_000, True)
    dropped = 300_000_000 - DEFAULT_LOG_HEAD - DEFAULT_LOG_TAIL
    _, _, whole = read(run_id, stream="stdout")
    said = b"\n[... %d bytes left out: output over the limit of 64 MiB ...]\n" % dropped
    head, found, tail = whole.partition(said)
    assert found
    assert (len(head), len(tail)) == (DEFAULT_LOG_HEAD, DEFAULT_LOG_TAIL)
    for part, start in ((head, 0), (tail, 300_000_000 - DEFAULT_LOG_TAIL)):
        first, skipped = divmod(start, 10)
        for place in range(0, len(part) - 40, 99_989):
            number, inside = divmod(first * 10 + skipped + place, 10)
            expected = b"".join(b"%d\n" % (100_000_000 + number + step) for step in range(4))[inside:]
            assert part[place : place + len(expected)] == expected, f"byte {start + place}"
    assert max(disk) < DEFAULT_LOG_HEAD + DEFAULT_LOG_TAIL + 64 * MIB, (
        f"{max(disk) / MIB:.0f} MiB on the disk"
    )
    assert memory.grown() < 128, f"MiB before {memory.first}, at most {memory.most}"
    assert_invariants(cluster)


def a_cap_of_its_own(cluster: Cluster, account: Account) -> None:
    """Catches: the cap of the specification that is ignored, one stream's cap that cuts the other."""
    spec = ProcessSpec(
        argv=["/bin/sh", "-c", "seq 100000 1 999999; echo short >&2"],
        mem_mb=64,
        log_head=70,
        log_tail=700_000,
    )
    run_id = services.submit(
        services.Submission(tenant_id=account.tenant_id, family="tasks", spec=spec, name="t")
    )
    wait_final(run_id)
    total = 900_000 * 7
    told = read(run_id, stream="stdout")[2]
    said = re.search(rb"\n\[\.\.\. (\d+) bytes left out: [^\n]*\n", told)
    assert said is not None
    head, tail, dropped = told[: said.start()], told[said.end() :], int(said.group(1))
    everything = b"".join(b"%d\n" % number for number in range(100_000, 1_000_000))
    # What was shipped before the cap was reached went in whole chunks: the head may be one chunk longer.
    assert 70 <= len(head) <= 70 + CHUNK
    assert 700_000 <= len(tail) <= 700_000 + CHUNK
    assert everything.startswith(head)
    assert everything.endswith(tail)
    assert len(head) + dropped + len(tail) == total
    assert output(run_id, stream=STDERR) == b"short\n"
    assert Attempt.objects.get(run_id=run_id).log_bytes == total + 6
    # Ranges give real bytes only: what was dropped does not come back as zeros.
    status, headers, body = answers.respond(
        {"stream": "stdout"}, {"Range": "bytes=-14"}, run(run_id), deleted=str
    )
    assert (status, b"".join(body)) == (206, b"999998\n999999\n")
    assert headers["Content-Range"] == f"bytes {total - 14}-{total - 1}/{total}"
    gone = f"bytes={len(head) + 1000}-{len(head) + 1010}"
    assert answers.respond({"stream": "stdout"}, {"Range": gone}, run(run_id), deleted=str)[0] == 416
    assert_invariants(cluster)


# --- while it runs ------------------------------------------------------------------------------------------


class Follower:
    """Follows a run's log in a thread, as a client of the log route does."""

    def __init__(self, run_id: int, **params: str) -> None:
        self.received = b""
        self._run = run(run_id)
        self._params = {"follow": "1", "raw": "1", **params}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            _, _, body = answers.respond(self._params, {}, self._run, deleted=str)
            for piece in body:
                self.received += piece
        finally:
            connection.close()

    def has(self, expected: bytes) -> bool:
        return self.received == expected

    def ended(self, timeout_s: float = 90.0) -> bytes:
        self._thread.join(limit(timeout_s))
        assert not self._thread.is_alive(), f"following does not end; so far: {self.received[-200:]!r}"
        return self.received


def a_log_is_followed_while_it_is_written(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches: output that comes only at the end, comes twice, or a follower that is never let go.

    Each line must have been read before the command is allowed to write the next one.
    """
    gates = [shared_folder / f"gate-{number}" for number in range(3)]
    script = "".join(
        f"echo line {number}; until test -e {gate}; do sleep 0.02; done; "
        for number, gate in enumerate(gates)
    )
    run_id = submit(account.tenant_id, script + "printf 'the end'; exit 3")
    follower, late = Follower(run_id), None
    expected = b""
    for number, gate in enumerate(gates):
        expected += b"line %d\n" % number
        wait_until(partial(follower.has, expected), why=f"line {number} is read while the command waits")
        late = late or Follower(run_id, stream="stdout", offset="2")
        assert run(run_id).state == State.RUNNING
        gate.touch()
    assert late is not None
    assert follower.ended() == expected + b"the end"
    assert late.ended() == (expected + b"the end")[2:]
    assert following.budget.taken == 0
    assert_invariants(cluster)


def a_follower_is_taken_along_to_the_next_attempt(account: Account, shared_folder: Path) -> None:
    """Catches: a follower that is sent away while a next try is due, or shown the first attempt only."""
    mark = shared_folder / "mark"
    run_id = submit(
        account.tenant_id,
        f"test -e {mark} && echo second && exit 0; touch {mark}; echo first; exit 1",
        retries=1,
    )
    assert Follower(run_id).ended() == b"first\n\n[... attempt 2 ...]\nsecond\n"
    assert read(run_id, attempt="1")[2] == b"first\n"
    assert read(run_id)[2] == b"second\n"


def a_long_poll_waits_for_the_next_byte(account: Account, shared_folder: Path) -> None:
    """Catches: a poll that comes back empty at once, or when its time is over: an hour here; one that does
    not tell that nothing follows."""
    gate = shared_folder / "gate"
    run_id = submit(account.tenant_id, f"printf abc; until test -e {gate}; do sleep 0.02; done; printf def")
    wait_started(run_id)
    wait_until(lambda: output(run_id), why="its first words are stored")
    _, headers, first = read(run_id, stream="stdout", offset="0", wait="3600")
    assert (first, headers["X-Log-Offset"], headers["X-Log-Complete"]) == (b"abc", "3", "false")

    def poll() -> tuple[int, Mapping[str, str], bytes]:
        try:
            return read(run_id, stream="stdout", offset="3", wait="3600")
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(poll)
        wait_until(lambda: following.budget.taken == 1 or polled.done(), why="it waits")
        gate.touch()
        _, headers, second = polled.result(limit(90))
    assert (second, headers["X-Log-Offset"]) == (b"def", "6")
    wait_final(run_id)
    _, headers, rest = read(run_id, stream="stdout", offset="6", wait="3600")
    assert (rest, headers["X-Log-Complete"]) == (b"", "true")


def following_a_flood(account: Account) -> None:
    """Catches: a follower that gets bytes twice or misses some when a lot is written at once."""
    run_id = submit(account.tenant_id, "seq 100000 999999", mem_mb=64)
    assert Follower(run_id, stream="stdout").ended() == b"".join(
        b"%d\n" % number for number in range(100_000, 1_000_000)
    )
    assert store.size(run_id, 1) == {STDOUT: 6_300_000, STDERR: 0}
