"""How far staging has come, in words."""

from __future__ import annotations

import pytest

from workers.runtimes.staging.progress import Progress, amount

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (17, "17 B"), (2048, "2 KiB"), (312 * MIB, "312 MiB"), (3 * 512 * MIB, "1.5 GiB")],
)
def test_amounts(size: int, words: str) -> None:
    assert amount(size) == words


def test_how_far_it_is() -> None:
    said: list[str] = []
    progress = Progress(said.append, "fetching", 1, 2, 900 * MIB)

    progress.add(312 * MIB)
    progress.say("it does not answer")

    assert said == [
        "fetching 1 of 2: 312 MiB of 900 MiB",
        "fetching 1 of 2: 312 MiB of 900 MiB; it does not answer",
    ]
