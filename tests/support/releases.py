"""Other releases of the worker: copies of the tree with a few lines changed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.support.cluster import ROOT

_PARTS = ("config", "workers", "tasks_api", "jobs", "queues", "workqueue")


def make_release(
    folder: Path, version: str, *, launcher_protocol: int | None = None, process_spec: int | None = None
) -> Path:
    """A tree for ``Cluster.node(python_path=...)`` that calls itself ``version``."""
    tree = folder / f"release-{version}"
    for part in _PARTS:
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "manage.py", tree / "manage.py")
    _change(tree / "config" / "settings.py", r'^VERSION = ".*"', f'VERSION = "{version}"')
    if launcher_protocol is not None:
        control = tree / "workers" / "launcher" / "control.py"
        _change(control, r"^PROTOCOL = \d+", f"PROTOCOL = {launcher_protocol}")
    if process_spec is not None:
        kind = '    KIND: ClassVar[str] = "process"'
        specs = tree / "workers" / "vocabulary" / "specs.py"
        _change(specs, f"^{re.escape(kind)}$", f"{kind}\n    VERSION: ClassVar[int] = {process_spec}")
    return tree


def _change(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
    assert count == 1, f"{pattern} is {count} times in {path}"
    path.write_text(text)
