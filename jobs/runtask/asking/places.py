"""Objects in a Swift: what clients name them, how a spec writes them, where they lie in the working folder.

Pure. Names are taken as they are, character for character: nothing is decoded, normalised or trimmed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from workers.vocabulary.errors import InvalidInput

#: Swift's own limits, in bytes of UTF-8.
CONTAINER_MOST: Final = 256
OBJECT_MOST: Final = 1024
#: Most inputs of one job: each is looked for while the client waits.
INPUTS_MOST: Final = 100

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
#: Of a file's name, in characters; what is cut is its beginning, since tools look at its end.
_NAME_MOST: Final = 200


@dataclass(frozen=True)
class Place:
    """An object in a container; both as the client wrote them."""

    container: str
    name: str

    def __str__(self) -> str:
        return f"{self.container}/{self.name}"

    @property
    def url(self) -> str:
        """As ``workers.vocabulary.staging`` writes it."""
        return f"swift://{quote(self.container, safe='')}/{quote(self.name)}"


def container(text: str, field: str) -> str:
    """A container's name, or InvalidInput naming ``field``."""
    if not text or "/" in text or text in (".", ".."):
        raise InvalidInput(f"{field}: {text[:80]!r} cannot be the name of a container", field=field)
    return _short(text, CONTAINER_MOST, f"{field}: a container's name", field)


def name(text: str, field: str) -> str:
    """An object's name, or InvalidInput naming ``field``."""
    if not text:
        raise InvalidInput(f"{field}: an object's name is empty", field=field)
    return _short(text, OBJECT_MOST, f"{field}: an object's name", field)


def _short(text: str, most: int, what: str, field: str) -> str:
    size = len(text.encode())
    if size > most:
        raise InvalidInput(f"{what} has {size} bytes: Swift takes at most {most}", field=field)
    return text


def inputs(text: str) -> list[Place]:
    """input_file, "container/a|b|c": the objects a, b and c; "" names none."""
    if not text:
        return []
    holder, slash, rest = text.partition("/")
    if not slash:
        raise InvalidInput(
            "input_file has no /: write container/object, or container/a|b|c", field="input_file"
        )
    names = rest.split("|")
    if not all(names):
        raise InvalidInput("input_file has an empty part between | and |, or at an end", field="input_file")
    if len(names) > INPUTS_MOST:
        raise InvalidInput(
            f"input_file has {len(names)} parts: at most {INPUTS_MOST} are possible", field="input_file"
        )
    holder = container(holder, "input_file")
    return [Place(holder, name(part, "input_file")) for part in names]


def output(text: str) -> Place | None:
    """output_file, "container/name"; "" names none."""
    if not text:
        return None
    holder, slash, rest = text.partition("/")
    if not slash or not rest:
        raise InvalidInput(
            "output_file has no / with a name after it: write container/object", field="output_file"
        )
    return Place(container(holder, "output_file"), name(rest, "output_file"))


def input_path(number: int, place: Place) -> str:
    """Where the input lies, relative to the working folder: of [A-Za-z0-9._/-] only, safe in any quoting."""
    return f"in/{number}/{_file_name(place)}"


def output_path(place: Place) -> str:
    """Where the command writes the output, in the same way."""
    return f"out/0/{_file_name(place)}"


def _file_name(place: Place) -> str:
    last = _UNSAFE.sub("_", place.name.rpartition("/")[2])[-_NAME_MOST:]
    # Not a folder's name: "", "." and "..".
    return last if last.strip(".") else "_" * max(1, len(last))
