"""When a watcher looks at its container."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from workers.runtimes.container import track as container_track
from workers.runtimes.container.track import Track


def test_it_is_looked_at_now_and_then_without_a_word_from_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: an end that is never noticed because its one event was lost."""
    monkeypatch.setattr(container_track, "_LOOK_S", 0.2)
    looked = time.monotonic()
    track = Track("box", tmp_path, {})

    def due() -> bool:
        nonlocal looked
        asked = time.monotonic()
        if not track.due():
            return False
        # Too soon is what comes before its time, however late it is asked.
        assert time.monotonic() - looked >= 0.2, "it is looked at all the time"
        looked = asked
        return True

    for _ in range(3):
        wait_until(due, every_s=0.01, why="it is looked at")
    track.wake()
    assert track.due()
