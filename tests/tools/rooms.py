"""The rooms of the project with their lines and arrows: ``python -m tests.tools.rooms``.

Measured from the imports as they are now, held against the order that the import contracts of pyproject.toml
state. Ends with 1 when two rooms import each other in a circle, or one imports upwards.
"""

from __future__ import annotations

import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grimp

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("config", "jobs", "queues", "tasks_api", "workers", "workqueue")
#: Where the order of the engine's rooms stands: the contract whose container this is.
ENGINE = "workers"


@dataclass(frozen=True)
class Room:
    """A folder, or a module beside the folders. ``level`` counts from the top; ``uses`` are arrows."""

    name: str
    level: int
    modules: int
    lines: int
    uses: tuple[str, ...]


def order() -> list[list[str]]:
    """The rooms from top to bottom, those of one level together, as the contracts state them."""
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    inside = next(contract for contract in contracts if contract.get("containers") == [ENGINE])
    above = next(contract for contract in contracts if ENGINE in contract.get("layers", []))
    within = [[f"{ENGINE}.{name}" for name in _names(layer)] for layer in inside["layers"]]
    return [*map(_names, above["layers"][:-1]), *within]


def _names(layer: str) -> list[str]:
    return [name.strip() for name in layer.split("|")]


def rooms() -> list[Room]:
    """Every room with what it uses, from top to bottom."""
    levels = {name: level for level, names in enumerate(order()) for name in names}
    graph = grimp.build_graph(*PACKAGES)
    modules: dict[str, list[str]] = defaultdict(list)
    uses: dict[str, set[str]] = defaultdict(set)
    for module in graph.modules:
        room = _room_of(module, levels)
        if room is None:
            continue
        modules[room].append(module)
        for target in graph.find_modules_directly_imported_by(module):
            other = _room_of(target, levels)
            if other not in (None, room):
                uses[room].add(str(other))
    return [
        Room(name, level, len(modules[name]), sum(map(_lines, modules[name])), tuple(sorted(uses[name])))
        for name, level in levels.items()
    ]


def _room_of(module: str, levels: dict[str, int]) -> str | None:
    """The room of a module; the app's own files (apps, migrations) belong to none."""
    parts = module.split(".")
    return next((name for name in (".".join(parts[:2]), parts[0]) if name in levels), None)


def _lines(module: str) -> int:
    path = PROJECT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return len(file.read_text().splitlines())


def upwards(found: list[Room]) -> Iterator[str]:
    """Arrows to a room that does not stand below."""
    levels = {room.name: room.level for room in found}
    for room in found:
        for other in room.uses:
            if levels[other] <= levels[room.name]:
                yield f"{room.name} -> {other}"


def circles(found: list[Room]) -> Iterator[str]:
    """Ways of imports that lead back to the room where they began, each once."""
    uses = {room.name: room.uses for room in found}

    def walk(start: str, way: list[str]) -> Iterator[list[str]]:
        for following in uses[way[-1]]:
            if following == start:
                yield way
            elif following > start and following not in way:
                yield from walk(start, [*way, following])

    for name in uses:
        for way in walk(name, [name]):
            yield " -> ".join([*way, name])


def main() -> int:
    found = rooms()
    width = max(len(room.name) for room in found)
    short = f"{ENGINE}."
    print(f"{'room':{width}}  modules  lines  uses")
    for room in found:
        uses = " ".join(name.removeprefix(short) for name in room.uses) or "-"
        print(f"{room.name:{width}}  {room.modules:7}  {room.lines:5}  {uses}")
    wrong = [f"upwards: {arrow}" for arrow in upwards(found)] + [f"circle: {way}" for way in circles(found)]
    print("\n".join(wrong) if wrong else "no circle, no arrow upwards")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
