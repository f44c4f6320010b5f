"""When a worker asks the wrapper for output: each question costs the engine and the container work."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.unit.runtimes.test_exec_stream import WORD, frame
from workers.runtimes.engine.link import Channel
from workers.runtimes.exec import track as exec_track
from workers.runtimes.exec.track import ExecTrack


class Wire(Channel):
    """A stream that begins with no answer's head."""

    def __init__(self, link: socket.socket) -> None:
        self._socket, self._first, self.chunked = link, b"", False


def test_a_brief_command_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at its start, when nothing is there; at once when it has ended, whenever the next look is due."""
    monkeypatch.setattr(exec_track, "_POLL_S", (30.0, 60.0))
    track = ExecTrack("1-1", tmp_path, {})
    track.save_plan(word=WORD.decode())
    ours, wrapper = socket.socketpair()
    with ours, wrapper:
        wrapper.setblocking(False)
        assert track.spool.lock()
        track.spool.open = True
        stream = track.open(Wire(ours), reading=False)
        stream.feed(frame(1, WORD + b"S 7 1 /tmp/.x\n"))
        assert 0 < track.pump() <= 30
        with pytest.raises(BlockingIOError):
            wrapper.recv(100)
        stream.feed(frame(1, WORD + b"D\n"))
        track.pump()
        assert wrapper.recv(100) == b"r 0 0\n"
        # Its end was not there yet: asked again soon, not at once.
        stream.feed(frame(1, WORD + b"A 0 1 \n"))
        assert 0 < track.pump() <= 30
        with pytest.raises(BlockingIOError):
            wrapper.recv(100)
        track.ask_at = 0.0
        track.pump()
        assert wrapper.recv(100) == b"r 0 0\n"
        stream.feed(frame(1, b"said\n" + WORD + b"E 0\n" + WORD + b"A 0 1 0\n"))
        assert track.code == 0
        track.spool.unlock()
