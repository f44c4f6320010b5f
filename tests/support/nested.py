"""Folders as commands may leave them: deeper than a path may be long. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path


def nest(folder: Path, levels: int, name: str = "d") -> None:
    """``levels`` folders in one another below ``folder``, which is made, a file in the last one."""
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(levels):
            os.mkdir(name, 0o700, dir_fd=here)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here))
    finally:
        os.close(here)
