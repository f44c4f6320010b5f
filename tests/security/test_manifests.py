"""A manifest and the folder beside it may come from somebody hostile: what is compared lies in the folder."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from workqueue.receipts.verify import BadManifest, verify


def _found(folder: Path, **fields: object) -> list[str]:
    """What is wrong with a copy of one file, in a manifest that nobody has signed."""
    line = {"type": "COPY", "status": "DONE", "element": 1, "size": 0, "checksum": "md5:x", **fields}
    text = json.dumps(line).encode() + b"\n"
    head = {"root": "/out", "key": "k", "signature": "", "entries": 1}
    head["sha256"] = hashlib.sha256(text).hexdigest()
    manifest = folder.parent / "manifest"
    manifest.write_bytes(json.dumps(head).encode() + b"\n" + text)
    told: list[str] = []
    assert verify(manifest, folder, None, told.append).problems == told
    return told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "folder"
    found.mkdir()
    return found


@pytest.mark.parametrize("path", ["/etc/passwd", "/out/../../manifest", "/outside/x"])
def test_a_path_outside_is_not_looked_at(folder: Path, path: str) -> None:
    assert _found(folder, path=path) == [f"{path}: leads out of the folder"]


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert _found(folder, path="/out/pipe") == ["/out/pipe: is no file"]


def test_a_name_writes_nothing_of_its_own(folder: Path) -> None:
    (told,) = _found(folder, path="/out/a\n\x1b[2K3 files: all are as the manifest says")
    assert told.isprintable()


def test_a_checksum_without_a_length_is_not_known(folder: Path) -> None:
    (folder / "a").touch()
    with pytest.raises(BadManifest, match="shake_128"):
        _found(folder, path="/out/a", checksum="shake_128:00")
