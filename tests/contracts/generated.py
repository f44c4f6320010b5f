"""A client that we did not write: what openapi-python-client makes of a family's OpenAPI document."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.waiting import limit


@contextmanager
def generated_client(
    document: bytes, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """The package ``name``, made in this folder from the document, as long as this lasts."""
    (folder / "schema.json").write_bytes(document)
    options = folder / "options.json"
    options.write_text(json.dumps({"post_hooks": []}))
    subprocess.run(
        [
            *(str(Path(sys.executable).parent / "openapi-python-client"), "generate", "--meta", "none"),
            *("--path", str(folder / "schema.json"), "--config", str(options)),
            *("--output-path", str(folder / name), "--fail-on-warning"),
        ],
        check=True,
        capture_output=True,
        timeout=limit(200),
    )
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module(name)
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]
