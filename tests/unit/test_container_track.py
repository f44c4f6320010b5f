"""When a watcher looks at its container."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster import wait_until
from workers.runtimes import container_track
from workers.runtimes.container_track import Track


def test_it_is_looked_at_now_and_then_without_a_word_from_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: an end that is never noticed because its one event was lost."""
    monkeypatch.setattr(container_track, "_LOOK_S", 0.2)
    track = Track("box", tmp_path, {})
    assert not track.due()
    for _ in range(2):
        wait_until(track.due, 5, 0.01, why="it is looked at")
        assert not track.due(), "it is looked at all the time"
    track.wake()
    assert track.due()
