"""The end of `node` and `callbacks`: a process of its own each time, since it really ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.waiting import limit

_PROGRAM = """
import os, threading
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
from config.management.celery_process import Leaving

def detach():
    print("detached", flush=True)
    {body}

leaving = Leaving(threading.Event(), detach)
for _ in range(5):
    leaving.in_background({code})
threading.Event().wait(6000)
"""


@pytest.mark.parametrize(
    ("body", "code", "ends"),
    [
        ("pass", 0, 0),
        ("pass", 3, 3),
        ("raise RuntimeError('the broker is away')", 0, 1),
        ("raise RuntimeError('the broker is away')", 3, 3),
        ("raise SystemExit(0)", 3, 3),
    ],
)
def test_it_detaches_once_and_ends_whatever_happens(body: str, code: int, ends: int) -> None:
    """Catches a worker that lives on, deaf, because its detaching failed, and one that detaches twice."""
    program = _PROGRAM.format(body=body, code=code)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=limit(60), check=False
    )
    assert (done.returncode, done.stdout.count("detached\n")) == (ends, 1), done.stderr
    assert ("process.detach_failed" in done.stdout + done.stderr) == ("RuntimeError" in body)
