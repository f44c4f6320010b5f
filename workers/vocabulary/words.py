"""A line split into words as a shell splits them: quotes, backslashes, line ends. Nothing is expanded."""

from __future__ import annotations

import re
from typing import Final

_PART: Final = re.compile(
    r"""
      (?P<joined>\\\r?\n)                           # backslash and line end vanish
    | (?P<blank>[ \t\r\n]+)
    | '(?P<single>[^']*)'
    | "(?P<double>(?:[^"\\]|\\.)*)"
    | \\(?P<escaped>.)
    | (?P<plain>[^ \t\r\n'"\\]+)
    """,
    re.VERBOSE | re.DOTALL,
)
#: What a backslash escapes inside double quotes; before anything else it stands for itself.
_IN_DOUBLE: Final = re.compile(r'\\(?:(\r?\n)|([$`"\\]))')


def split_words(line: str) -> list[str]:
    """The words of ``line``. Raises ValueError: a quote is not closed, or nothing follows a backslash.

    Source: POSIX, Shell Command Language, 2.2 Quoting. Python's shlex leaves the backslash before ``$``,
    a backquote and a line end inside double quotes, and the line end after one outside of quotes.
    """
    found: list[str] = []
    word: str | None = None
    place = 0
    while place < len(line):
        part = _PART.match(line, place)
        if part is None:
            raise ValueError("No escaped character" if line[place] == "\\" else "No closing quotation")
        place = part.end()
        if part.lastgroup == "blank":
            if word is not None:
                found.append(word)
            word = None
        elif part.lastgroup == "double":
            word = (word or "") + _IN_DOUBLE.sub(lambda escape: escape[2] or "", part["double"])
        elif part.lastgroup != "joined":
            word = (word or "") + part[str(part.lastgroup)]
    return found if word is None else [*found, word]
