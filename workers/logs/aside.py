"""Stepping aside: what may take long says so before it begins, and no longer keeps others from being served.

A server puts its own duty in (``config.serving``): the thread that steps aside no longer counts as one of
those that answer requests, and takes one of the places for long answers instead. Elsewhere, in a worker or
a test, nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable


def _nothing() -> None:
    return


_duty: Callable[[], None] = _nothing


def serve(duty: Callable[[], None]) -> None:
    """From now on ``duty`` is done at each step aside; it may raise ``errors.Unavailable``."""
    global _duty
    _duty = duty


def step_aside() -> None:
    """This request may take long from here on. Raises Unavailable when too many do already."""
    _duty()
