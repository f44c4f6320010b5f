"""``python -m workers.runtimes.transfer.mover ORDERS``: reads the file, removes it, does what it says."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final, NoReturn

from django.conf import settings

from workers.runtimes.transfer.mover.batch import Batch
from workers.runtimes.transfer.mover.element import Cancelled, code_of, words_of
from workers.runtimes.transfer.mover.reporting import Reporter
from workers.vocabulary.transfers.orders import Orders

#: Seconds in which threads may see for themselves that we were told to stop.
_STOP_S: Final = 0.7
_DONE: Final = 0
_GIVEN_UP: Final = 75
_STOPPED: Final = 128 + signal.SIGTERM


def main(arguments: list[str]) -> NoReturn:
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: told.set())
    os.environ.pop("PYTHONPATH", None)  # a tool that a tree starts has its own
    orders = _read(arguments[0])
    report = Reporter(1, orders.secrets())
    batch = Batch(orders, report, str(Path.cwd()))
    work = threading.Thread(target=_work, args=(batch,), name="mover", daemon=True)
    work.start()
    while work.is_alive() and not told.is_set():
        work.join(0.05)
    code = _DONE
    if work.is_alive():
        code = _STOPPED
        _stop(batch, work)
    elif batch.given_up:
        code = _GIVEN_UP
        report.note("an endpoint did not answer any more: what was not begun is tried again later")
    report.close()
    sys.stderr.flush()
    # Threads may hang in a library, and hooks of libraries may wait for them: nothing is left to do.
    os._exit(code)


def _read(path: str) -> Orders:
    """The orders; nobody reads them again, for they hold secrets."""
    file = Path(path)
    data: dict[str, Any] = json.loads(file.read_bytes())
    file.unlink()
    settings.configure(**data.get("settings") or {})
    return Orders.from_json(data["orders"])


def _work(batch: Batch) -> None:
    batch.work()
    if not batch.stopping.is_set():
        batch.close()


def _stop(batch: Batch, work: threading.Thread) -> None:
    """Everybody stops by themselves within a moment; who hangs is ended here."""
    batch.stopping.set()
    until = time.monotonic() + _STOP_S
    work.join(max(0.0, until - time.monotonic()))
    error = Cancelled()
    for element in batch.report.cut_off():
        element.say(words_of(error))
        batch.report.end(element, ok=False, code=code_of(error), again=True)


if __name__ == "__main__":
    main(sys.argv[1:])
