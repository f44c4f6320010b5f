"""Whose exception it was: a caller's ``tick`` is asked deep inside of libraries that wrap what they catch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tick = Callable[[], None]


class Ticking:
    """Call it in the caller's place; what the caller raised leaves ``passing`` as it was."""

    def __init__(self, tick: Tick) -> None:
        self._tick = tick
        self._raised: BaseException | None = None

    def __call__(self) -> None:
        self.guarded(self._tick)

    def guarded(self, asked: Tick) -> None:
        """Ask the caller something else."""
        try:
            asked()
        except BaseException as error:
            self._raised = error
            raise

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Around whatever may wrap exceptions."""
        try:
            yield
        except BaseException:
            raised, self._raised = self._raised, None
            if raised is not None:
                raise raised from None
            raise
