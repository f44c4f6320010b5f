"""This installation's job definitions: the folder GANTRY_RUNTASK_DEFINITIONS, read again when it changes.

A broken definition is kept aside with the reason, and named in the log once for each change; the others work.
Must not import models, HTTP or the worker's side.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from django.conf import settings

from jobs.runtask.catalogue.parsing import DEFINE, SCRIPT, SCRIPT_MOST, BadDefinition, Definition, parse
from jobs.runtask.errors import BrokenDefinition, NoSuchDefinition
from workers.vocabulary.errors import InvalidInput

log = structlog.get_logger(__name__)

#: What runs when a client names no definition and there are several.
DEFAULT: Final = "default"
#: What a changed file is known by.
Sign = tuple[int, int, int, int]


@dataclass(frozen=True)
class Catalogue:
    """Everything in the folder by name. ``trouble``: why the folder itself cannot be read."""

    definitions: dict[str, Definition] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    trouble: str = ""

    def find(self, name: str) -> Definition:
        """The definition that a client asks for; "" = the only one, else the one named default.

        Raises NoSuchDefinition, BrokenDefinition.
        """
        known = ", ".join(sorted(self.definitions)) or "none"
        if not name:
            if len(self.definitions) == 1 and not self.broken:
                return next(iter(self.definitions.values()))
            name = DEFAULT
            if name not in self.definitions and name not in self.broken:
                raise InvalidInput(f"job is missing: name one of the job definitions ({known})", field="job")
        if name in self.broken:
            raise BrokenDefinition(f"the job definition {name} cannot be used: {self.broken[name]}")
        if name not in self.definitions:
            raise NoSuchDefinition(
                f"there is no job definition {name[:80]!r}: there are {known}", field="job"
            )
        return self.definitions[name]


_lock: Final = threading.Lock()
_known: tuple[Path, dict[str, tuple[Sign, Sign]], str, Catalogue] | None = None


def catalogue() -> Catalogue:
    """What is there now: a look at each file's time and size, and nothing more while none has changed."""
    global _known
    folder = Path(settings.GANTRY_RUNTASK_DEFINITIONS)
    try:
        signs, trouble = dict(_signs(folder)), ""
    except OSError as error:
        signs, trouble = {}, f"{folder} cannot be read: {error.strerror}"
    with _lock:
        if _known is None or _known[:3] != (folder, signs, trouble):
            found = _read(folder, signs, trouble)
            _tell(found, _known[3] if _known is not None else Catalogue())
            _known = (folder, signs, trouble, found)
        return _known[3]


def _signs(folder: Path) -> Iterator[tuple[str, tuple[Sign, Sign]]]:
    """Each definition's folder and what its files are known by; hidden folders and lone files are none."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda item: item.name):
            if entry.is_dir() and not entry.name.startswith((".", "__")):
                yield entry.name, (_sign(folder / entry.name / SCRIPT), _sign(folder / entry.name / DEFINE))


def _sign(path: Path) -> Sign:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0, 0)
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)


def _read(folder: Path, names: dict[str, tuple[Sign, Sign]], trouble: str) -> Catalogue:
    definitions: dict[str, Definition] = {}
    broken: dict[str, str] = {}
    for name in names:
        try:
            definitions[name] = parse(
                name, _bytes(folder / name, SCRIPT, SCRIPT_MOST), _bytes(folder / name, DEFINE, SCRIPT_MOST)
            )
        except BadDefinition as error:
            broken[name] = str(error)
    return Catalogue(definitions, broken, trouble)


def _bytes(folder: Path, name: str, most: int) -> bytes:
    try:
        # A pipe must not make a request wait for somebody who writes.
        with os.fdopen(os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadDefinition(f"{name} is no file")
            return file.read(most + 1)
    except FileNotFoundError:
        raise BadDefinition(f"{name} is missing") from None
    except OSError as error:
        raise BadDefinition(f"{name} cannot be read: {error.strerror}") from None


def _tell(found: Catalogue, before: Catalogue) -> None:
    if found.trouble and found.trouble != before.trouble:
        log.warning("runtask.definitions_unreadable", problem=found.trouble)
    for name, problem in found.broken.items():
        if before.broken.get(name) != problem:
            log.warning("runtask.definition_broken", definition=name, problem=problem)
