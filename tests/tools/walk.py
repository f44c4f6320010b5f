"""The modules that a call goes through, in the order in which a debugger would enter them.

``watch`` does the same for a whole process: a sitecustomize module of its own calls it first. Standard
library only, since it runs inside of what is watched.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

PROJECT = str(Path(__file__).resolve().parents[2])
_PACKAGES = ("config/", "jobs/", "tasks_api/", "workers/")


def module_of(file: str, root: str = PROJECT) -> str | None:
    """The project's module in this file, by its path: workers/scheduling/claiming.py; None for others'."""
    inside = file.removeprefix(root + "/")
    return inside if inside != file and inside.startswith(_PACKAGES) else None


def followed(call: Callable[[], object]) -> list[str]:
    """Files of the project's modules that ``call`` enters in this thread, each once, in their order."""
    way: list[str] = []

    def enter(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            file = module_of(frame.f_code.co_filename)
            if file and file not in way:
                way.append(file)

    sys.setprofile(enter)
    try:
        call()
    finally:
        sys.setprofile(None)
    return way


def watch(file: str) -> None:
    """Write "thread<TAB>module<TAB>function" to ``file`` at each first entry in a thread, from now on."""
    out = Path(file).open("a", buffering=1)  # noqa: SIM115  for the life of this process
    seen: set[tuple[str, str, str]] = set()

    def enter(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            module = module_of(frame.f_code.co_filename)
            if module:
                entry = (threading.current_thread().name, module, frame.f_code.co_name)
                if entry not in seen:
                    seen.add(entry)
                    out.write("\t".join(entry) + "\n")

    threading.setprofile(enter)
    sys.setprofile(enter)
