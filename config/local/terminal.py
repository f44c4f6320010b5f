"""What the local commands print: short lines for a person, coloured where a terminal shows colours.

Must not import any other part of the project.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

_CODES = {"good": "32", "bad": "31", "warn": "33", "quiet": "2", "strong": "1"}


def paint(text: str, how: str, stream: TextIO = sys.stdout) -> str:
    """`text` in a colour, or as it is where nobody would see it or asked not to (NO_COLOR)."""
    if os.environ.get("NO_COLOR") or not stream.isatty():
        return text
    return f"\033[{_CODES[how]}m{text}\033[0m"


def tell(text: str) -> None:
    """A line for whoever still reads: a closed terminal or pipe must not keep anything from being stopped."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def say(what: str, text: str, how: str | None = None) -> None:
    """One line: a short subject, aligned, and what is the matter with it."""
    label = f"{what:<10}"
    tell(f"  {paint(label, how) if how else label} {text}")


def complain(text: str) -> None:
    """An error message on standard error."""
    print(paint(text, "bad", sys.stderr), file=sys.stderr, flush=True)


_steps = 0


def step(title: str) -> None:
    """The heading of the demo's next part."""
    global _steps
    _steps += 1
    heading = paint(f"{_steps}. {title}", "strong")
    print(f"\n{heading}", flush=True)


def note(text: str) -> None:
    print(f"   {text}", flush=True)


def quote(text: str, stream: str = "stdout") -> None:
    """What a command wrote."""
    for line in text.rstrip("\n").splitlines():
        print(f"      {paint(stream, 'quiet')} | {line}", flush=True)
