"""Objects of any size in and out: what is in memory does not grow with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.swift import Swift
from tests.support.waiting import limit

_GIB = 1 << 30
_SCRIPT = """
import hashlib, os, resource, sys
import django
django.setup()
from workers.storage.opening import open_storage
from workers.storage.base import Upload
from workers.vocabulary.staging import Store
store = Store(auth_url=sys.argv[1], user="tester", tenant="test", key="testing")
storage = open_storage(store)
storage.stat(sys.argv[3] + "/small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(sys.argv[2], "rb") as file:
    size = os.stat(sys.argv[2]).st_size
    storage.store(sys.argv[3] + "/large", Upload(file.fileno(), size, "m"))
come = 0
with storage.read(sys.argv[3] + "/large") as pieces:
    for piece in pieces:
        come += len(piece)
assert come == size
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def _grown(swift: Swift, file: Path) -> int:
    """KiB that a process needs more when it has stored and read the file."""
    container = swift.container()
    swift.put(f"{container}/small", b"x")
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, swift.store().auth_url, str(file), container],
        env={**os.environ, "GANTRY_SWIFT_ALLOW_NETWORKS": "127.0.0.0/8", "GANTRY_SWIFT_SEGMENT_MB": "16"},
        capture_output=True,
        text=True,
        timeout=limit(1200),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout)


def test_a_file_of_many_segments(swift: Swift, tmp_path: Path) -> None:
    """Catches a segment, or a file, that is read into memory."""
    file = tmp_path / "file"
    with file.open("wb") as out:
        out.truncate(64 << 20)
    assert _grown(swift, file) < 12 * 1024


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_two_gibibytes(swift: Swift, tmp_path: Path) -> None:
    """The same with what the contract names."""
    file = tmp_path / "file"
    with file.open("wb") as out:
        out.truncate(2 * _GIB)
    assert _grown(swift, file) < 12 * 1024
