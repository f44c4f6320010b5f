"""What the API's processes do once they are loaded."""

from __future__ import annotations

import subprocess
import sys


def test_full_collections_do_not_look_at_what_is_loaded() -> None:
    """Catches 50 ms in one of a hundred requests: Python's collector over all of Django."""
    told = "import gc, config.asgi; print(gc.get_freeze_count(), len(gc.get_objects()))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    frozen, others = map(int, done.stdout.split()[-2:])
    assert frozen > 50_000, "Django, REST framework, the pages and their URLs"
    assert others < frozen / 10
