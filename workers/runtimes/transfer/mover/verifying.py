"""Checksums of a copy: which one, computed while the content passes, and what was shown by it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Any, Final, Protocol

from workers.runtimes.transfer.mover.element import Refused
from workers.storage.trees.base import ALGORITHMS, StorageFailed, Tree, Trouble, shown

#: extra_opts.checksum that asks for one without naming it.
_ANY: Final = frozenset({"1", "true", "yes", "on", "any"})
_OFF: Final = frozenset({"", "0", "false", "no", "off", "none"})


class Digest(Protocol):
    def update(self, piece: bytes) -> None: ...

    def hexdigest(self) -> str: ...


class Adler32:
    """zlib's, as hashlib has its own."""

    def __init__(self) -> None:
        self._value = 1

    def update(self, piece: bytes) -> None:
        self._value = zlib.adler32(piece, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def digest(algorithm: str) -> Digest:
    return Adler32() if algorithm == "adler32" else hashlib.new(algorithm, usedforsecurity=False)


class Choice:
    """Which checksum a batch compares. ``algorithm`` "": sizes alone.

    ``at_target``, ``at_source``: who can say it. ``asked``: by the client, so what nobody says is read again.
    """

    def __init__(self, option: Any, source: Tree, target: Tree) -> None:
        """``option`` is extra_opts.checksum. Raises Refused for an algorithm that nobody knows here."""
        wanted = "" if option is None else str(option).lower()
        here, there = source.traits.checksums, target.traits.checksums
        if wanted in _OFF or wanted in _ANY:
            order = [name for name in ALGORITHMS if name in here and name in there]
            order += [name for name in ALGORITHMS if name in there]
            order += [name for name in ALGORITHMS if name in here]
            if wanted in _ANY:
                order.append(ALGORITHMS[0])
            self.algorithm = order[0] if order else ""
        elif wanted in ALGORITHMS:
            self.algorithm = wanted
        else:
            raise Refused(f"extra_opts.checksum {option!r} is none of {', '.join(ALGORITHMS)}, true, false")
        self.at_source = self.algorithm in here
        self.at_target = self.algorithm in there
        self.asked = wanted not in _OFF


def content_checksum(
    tree: Tree, path: bytes, algorithm: str, check: Callable[[], None], *, asking: bool = True
) -> str:
    """Of a file as its storage says it (``asking``), else of what is read from it.

    ``check`` is called after each piece and may raise.
    """
    if asking and algorithm in tree.traits.checksums and (said := tree.checksum(path, algorithm)):
        return said
    made = digest(algorithm)
    with tree.read(path) as pieces:
        for piece in pieces:
            made.update(piece)
            check()
    return made.hexdigest()


def compare(path: bytes, algorithm: str, sent: str, said: str, whose: str) -> None:
    """Raises StorageFailed DAMAGED when the two differ."""
    if sent.lower() != said.lower():
        raise StorageFailed(
            f"{shown(path)}: {algorithm} is {sent} of what was sent and {said} {whose}: damaged on the way",
            Trouble.DAMAGED,
        )
