"""The part of a file, sent while it is written."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Any, Final

from workers.storage.trees.base import STALL_S, StorageFailed, Trouble, shown
from workers.storage.trees.gridftp.sessions import Session, Sessions, wide_pipe

#: How long a server may take to end a file that is given up in the middle.
_ENDING_S: Final = 3.0
#: A file that fits into a pipe as it is goes at once, when it is complete.
_AT_ONCE: Final = 65_536


class Sending:
    """A ``filling.Writer``: a session of its own from the first byte to the last, fed by a pipe."""

    def __init__(
        self,
        sessions: Sessions,
        order: dict[str, Any],
        path: bytes,
        refused: Callable[[dict[str, Any]], StorageFailed],
    ) -> None:
        self._path = path
        self._sessions = sessions
        self._order = order
        self._refused = refused
        self._kept = b""
        self._session: Session | None = None
        self._pipe = -1

    def write(self, piece: bytes) -> None:
        if self._session is None:
            self._kept += piece
            if len(self._kept) <= _AT_ONCE:
                return
            session = self._open(whole=False)
            self._feed(session, self._kept)
            self._kept = b""
            self._begin(session)
        else:
            self._feed(self._session, piece)

    def finish(self) -> None:
        self._hear(self._session or self._open(whole=True))

    def close(self) -> None:
        """In the middle: what has been sent is on its way still, and the next attempt goes on after it."""
        if self._session is not None:
            session = self._session
            self._close_pipe()
            try:
                session.answer(patience=_ENDING_S)
            except StorageFailed:
                session.kill()
            self._give_back(session)

    def _open(self, *, whole: bool) -> Session:
        session = self._session = self._sessions.take()
        reading, self._pipe = os.pipe() if whole else wide_pipe()
        os.set_blocking(self._pipe, False)
        try:
            if whole:
                self._feed(session, self._kept)
                self._kept = b""
                self._close_pipe()
            session.order({**self._order, "whole": whole}, self._path, reading)
        except StorageFailed as failed:
            self._give_back(session, failed)
            raise
        finally:
            os.close(reading)
        return session

    def _feed(self, session: Session, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            try:
                session.await_pipe(self._pipe, select.POLLOUT)
                rest = rest[os.write(self._pipe, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:  # it has ended, and says why
                self._hear(session)
                raise StorageFailed(
                    f"{shown(self._path)}: {self._sessions.where} ended before everything was sent",
                    Trouble.AWAY,
                ) from None
            except StorageFailed as failed:
                self._give_back(session, failed)
                raise

    def _begin(self, session: Session) -> None:
        """Until the server has the file open: a later attempt that takes it over finds it from now on."""
        try:
            found = session.hear(time.monotonic() + STALL_S)
            if "ok" in found:
                raise self._refused(found)
        except StorageFailed as failed:
            self._give_back(session, failed)
            raise

    def _hear(self, session: Session) -> None:
        """The answer, after the last byte."""
        self._close_pipe()
        failed: StorageFailed | None = None
        try:
            answer = session.answer()
            if not answer["ok"]:
                raise self._refused(answer)
        except StorageFailed as found:
            failed = found
            raise
        finally:
            self._give_back(session, failed)

    def _give_back(self, session: Session, failed: StorageFailed | None = None) -> None:
        self._close_pipe()
        self._session = None
        self._sessions.give(session, failed)

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
