"""What the transfer runtime has beside the others: orders that nobody else reads, a report for the books."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conformance.driving import PATIENCE, Collected, adopted, ended, start
from tests.conformance.subjects import SECRET, Transfers
from tests.support.waiting import wait_until
from workers.logs.capture import STDOUT
from workers.runtimes.transfer import output


@pytest.fixture
def transfers() -> Iterator[Transfers]:
    made = Transfers()
    try:
        yield made
    finally:
        made.close()


def orders_of(transfers: Transfers) -> list[Path]:
    return list(transfers.node.glob("mover/runs/*/orders"))


def test_orders_are_for_the_mover_alone(transfers: Transfers) -> None:
    """Catches secrets that others can read, or that stay after the mover has read them."""
    runtime, run = transfers.runtime(), transfers.run("exec sleep 100")
    runtime.prepare(run, lambda: False, lambda said: None)
    (orders,) = orders_of(transfers)
    assert SECRET in orders.read_text()
    assert (orders.stat().st_mode & 0o777, orders.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    start(runtime, run)
    wait_until(lambda: not orders_of(transfers), PATIENCE, why="the mover reads its orders")
    start(runtime, run)
    assert orders_of(transfers) == [], "it runs: nobody would read them"


def test_the_report_is_told_in_whole_lines_once(
    transfers: Transfers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches half a line in the books, a line twice, one that is left out, also by the next worker."""
    monkeypatch.setattr(output, "BUDGET", 100)
    lines = [f'{{"n": {number}, "log": "{"x" * (number * 7 % 300)}"}}\n' for number in range(100)]
    runtime, run = transfers.runtime(), transfers.run("true", report="".join(lines) + '{"n": 100, "lo')
    start(runtime, run)
    assert ended(runtime, run).code == 0
    first = Collected(runtime, run)
    for _ in range(5):
        assert first.some(), "there is more"
    assert first.report.endswith(b"\n")
    again = replace(adopted(run), reported=len(first.report))
    rest = Collected(transfers.runtime(), again)
    rest.rest()
    assert (first.report + rest.report).decode() == "".join(lines)


def test_its_words_hold_no_secret(transfers: Transfers) -> None:
    runtime, run = transfers.runtime(), transfers.run(f"echo the password is {SECRET}")
    start(runtime, run)
    ended(runtime, run)
    collected = Collected(runtime, run)
    collected.rest()
    assert collected.text()[STDOUT] == b"the password is ***\n"
