"""The worker's side of the containers' guard (``workers.launcher.containers``): tells it, keeps it alive.

Must not import Django.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from workers.launcher import control
from workers.launcher.guard import Guard
from workers.runtimes.engine.client import Engine

_PROGRAM: Final = str(Path(control.__file__).with_name("__main__.py"))
#: How long such a program may take to be there.
_BEGIN_S: Final = 10.0


class GuardKeeper:
    """One per worker and runtime, all with the same guard. ``folder`` belongs to the guard, ``runs`` has the
    control folders of containers; those of execs are beside it in ``execs``."""

    def __init__(self, folder: Path, engine: Engine, runs: Path, installation: str, node_name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = str(folder)
        self._engine = engine
        self._runs = runs
        self._installation = installation
        self._node_name = node_name
        self._guard = Guard(self._folder, control.boot_id())
        self._introduced = False
        self._lock = threading.Lock()

    def renew(self, as_of: float, kill_after_s: float, lost_after_s: float) -> None:
        """This worker was alive at ``as_of``. Raises OSError."""
        with self._lock:
            self._guard.renew(kill_after_s, lost_after_s, as_of)
            self._introduce()
            self._keep_alive()

    def ensure(self) -> None:
        """Before something starts: somebody must be there who ends it if this worker is cut off."""
        with self._lock:
            self._introduce()
            self._keep_alive()

    def _introduce(self) -> None:
        """Tell where the engine is, once it has answered: before that nothing can run on it."""
        if self._introduced or not self._engine.prefix:
            return
        record = {
            **self._engine.record(),
            "installation": self._installation,
            "node": self._node_name,
            "runs": str(self._runs),
            "execs": str(self._runs.with_name("execs")),
        }
        control.write_record(f"{self._folder}/engine", record)
        self._introduced = True

    def _keep_alive(self) -> None:
        if self._introduced and not control.lock_held(self._folder):
            begin("containers", self._folder)


def begin(program: str, folder: str) -> None:
    """Start a program that outlives the worker (``launcher/__main__.py``), and return when it is there.

    Raises OSError, also when it takes too long.
    """
    try:
        subprocess.run(
            [sys.executable, "-I", "-S", "-X", "utf8", _PROGRAM, program, folder],
            # An environment of its own: the worker's holds secrets.
            env={"PATH": os.defpath},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            timeout=_BEGIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"it does not begin within {_BEGIN_S:.0f} s") from error
