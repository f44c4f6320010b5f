"""Replaces secrets in output by ***. Pure: no database, no Django, no files.

Stateless, so that a reader of a file keeps nothing in memory: ``replace`` says how many bytes it has dealt
with, and the caller passes the rest again, together with what has come after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

#: Contract, "Secrets": shorter ones would hide half of any text.
SHORTEST: Final = 4
MASK: Final = b"***"
#: Contract, "Secrets": of a secret of several lines.
SHORTEST_LINE: Final = 8


def _length(text: bytes) -> int:
    """In characters."""
    return len(text.decode(errors="replace"))


class Redactor:
    """Finds every secret of at least 4 characters, the longest first where several begin at one place, and
    each line of at least 8 characters of a secret of several lines: a key is seldom printed as a whole.

    False when there is nothing to look for: then leave it out, it costs nothing.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        wanted = set()
        for secret in secrets:
            if _length(secret) >= SHORTEST:
                wanted.add(secret)
            lines = secret.splitlines()
            if len(lines) > 1:
                wanted |= {line for line in lines if _length(line) >= SHORTEST_LINE}
        self._secrets = sorted(wanted, key=lambda secret: (-len(secret), secret))
        self._pattern = re.compile(b"|".join(re.escape(secret) for secret in self._secrets))
        #: Length of the longest secret in bytes; 0 without any.
        self.longest = len(self._secrets[0]) if self._secrets else 0

    def __bool__(self) -> bool:
        return bool(self._secrets)

    def replace(
        self, data: bytes, *, last: bool, torn_start: bool = False, torn_end: bool = False
    ) -> tuple[bytes, int]:
        """Returns (clean bytes, how many of ``data`` they stand for).

        Unless this is the ``last`` piece, an end that may be the beginning of a secret is held back. A torn
        edge is one beyond which output was left out: the part of a secret that stands there is masked too
        (from 4 bytes on); ``torn_end`` implies ``last``.
        """
        last = last or torn_end
        if not self._secrets:
            return data, len(data)
        pieces: list[bytes] = []
        position = 0
        if torn_start:
            if len(data) < self.longest and not last:
                return b"", 0
            position = self._torn_length(data, both=torn_end)
            if position:
                pieces.append(MASK)
        held = len(data) if last else self._held_from(data, position)
        while (match := self._pattern.search(data, position)) is not None and match.start() < held:
            pieces += (data[position : match.start()], MASK)
            position = match.end()
            if position > held:
                held = self._held_from(data, position)
        if torn_end:
            begins = self._held_from(data, position)
            if len(data) - begins >= SHORTEST:
                pieces += (data[position:begins], MASK)
                position = len(data)
        pieces.append(data[position:held])
        return b"".join(pieces), held

    def _held_from(self, data: bytes, start: int) -> int:
        """The first place from ``start`` on where the rest of ``data`` is the beginning of a secret."""
        for place in range(max(start, len(data) - self.longest + 1), len(data)):
            rest = data[place:]
            if any(len(secret) > len(rest) and secret.startswith(rest) for secret in self._secrets):
                return place
        return len(data)

    def _torn_length(self, data: bytes, *, both: bool) -> int:
        """How many first bytes of ``data`` are the end of a secret that began in what was left out."""
        if self._pattern.match(data):
            return 0
        if both and len(data) >= SHORTEST and any(data in secret for secret in self._secrets):
            return len(data)
        for length in range(min(self.longest - 1, len(data)), SHORTEST - 1, -1):
            if any(len(secret) > length and secret.endswith(data[:length]) for secret in self._secrets):
                return length
        return 0
