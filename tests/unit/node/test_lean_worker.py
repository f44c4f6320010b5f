"""What a worker's process loads: there are many of them, and each start waits for it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.support.waiting import limit

_PAGES = (
    "workers.admin",
    "workers.api",
    "tasks_api.views",
    "jobs.saved.views",
    "rest_framework.views",
    "config.urls",
    # What Celery's command line and its plugins load.
    "celery.bin.celery",
    "flower",
    "prompt_toolkit",
)
_PROGRAM = """
import sys
import django
django.setup()
from django.core.management import call_command
from django.core.management.base import CommandError
try:
    call_command("{command}", skip_checks=False)
except Exception as error:
    assert "127.0.0.1" in str(error), error
else:
    raise SystemExit("it found a database")
print(*sys.modules)
"""

#: After the node's or the deliverer's own start comes Celery's, which needs no broker until then.
_CELERY = """
import os, sys, threading
import django
django.setup()
from celery.signals import worker_init
from config.management.celery_process import Leaving, run_celery

def started(**_):
    print(*sys.modules, flush=True)
    os._exit(0)

import workers.node.attempt.runner
from config.celery import app
app.finalize()
worker_init.connect(started, weak=False)
run_celery("lean", "lean@lean", 1, Leaving(threading.Event(), lambda: None))
"""


@pytest.mark.parametrize(
    "program", [_PROGRAM.format(command="node"), _PROGRAM.format(command="callbacks"), _CELERY]
)
def test_a_worker_loads_no_page(program: str, tmp_path: os.PathLike[str]) -> None:
    """Catches a third of its start, and 20 MiB, for an admin and views that it never shows."""
    environment = {
        **os.environ,
        "GANTRY_ROLE": "worker",
        "GANTRY_NODE_NAME": "lean",
        "GANTRY_DATA_DIR": str(tmp_path),
        "DATABASE_URL": "postgres://gantry@127.0.0.1:1/gantry",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment, capture_output=True, text=True, timeout=limit(100), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "workers.node.attempt.runner" in loaded or "workers.callbacks.deliverer" in loaded
    assert loaded.isdisjoint(_PAGES)


@pytest.mark.parametrize("command", ["node", "callbacks"])
def test_garbage_is_collected_once_everything_is_loaded(command: str) -> None:
    """Catches a worker that never collects any: manage.py starts it without."""
    gc.disable()
    try:
        with pytest.raises(CommandError, match="GANTRY_ROLE"):
            call_command(command)
        assert gc.isenabled()
    finally:
        gc.enable()
