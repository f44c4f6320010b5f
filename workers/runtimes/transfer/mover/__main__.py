"""``python -m workers.runtimes.transfer.mover ORDERS``: reads the file, removes it, does what it says.

Many small local files are done by several processes: what a file costs is then our own time, of which one
process of Python has no more than one processor's.

A mover ends with its shim. Where that is killed, and the launcher with it, nobody is left who could stop a
mover, while its elements are handed out again: it must not be there any more then.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from workers.launcher import control, kernel
from workers.runtimes.transfer.mover.batch import Batch
from workers.runtimes.transfer.mover.bounds import SMALL
from workers.runtimes.transfer.mover.element import Cancelled, code_of, words_of
from workers.runtimes.transfer.mover.reporting import Reporter
from workers.vocabulary.transfers.orders import Orders
from workers.vocabulary.transfers.reach import Act, Protocol

#: Seconds in which threads may see for themselves that we were told to stop.
_STOP_S: Final = 0.7
#: How often it is looked whether we were told so, in seconds.
_LOOK_S: Final = 0.05
_DONE: Final = 0
_GIVEN_UP: Final = 75
_STOPPED: Final = 128 + signal.SIGTERM
#: So many elements for each process at least, which are small on the average.
_SHARE: Final = 100
_MOST_HANDS: Final = 4


def main(path: str) -> int:
    """The exit code."""
    kernel.die_with_parent()
    if _is_orphan(path):
        return _STOPPED
    os.environ.pop("PYTHONPATH", None)  # a tool that a tree starts has its own
    orders = _read(path)
    hands = _hands(orders)
    return _lead(orders, hands) if hands > 1 else _work(orders)


def _is_orphan(path: str) -> bool:
    """Has the shim gone before it could take us along? It holds this lock for life (``launcher.control``)."""
    folder = str(Path(path).parent)
    return Path(folder, "lock").exists() and not control.lock_held(folder)


def _read(path: str) -> Orders:
    """The orders; nobody reads them again, for they hold secrets."""
    file = Path(path)
    data: dict[str, Any] = json.loads(file.read_bytes())
    file.unlink()
    settings.configure(**data.get("settings") or {})
    return Orders.from_json(data["orders"])


def _work(orders: Orders, *, shared: bool = False) -> int:
    """The batch in this process. ``shared``: others write to the same report."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: told.set())
    report = Reporter(1, orders.secrets(), shared=shared)
    batch = Batch(orders, report, str(Path.cwd()))
    work = threading.Thread(target=_carry_out, args=(batch,), name="mover", daemon=True)
    work.start()
    while work.is_alive() and not told.is_set():
        work.join(_LOOK_S)
    code = _DONE
    if work.is_alive():
        code = _STOPPED
        _stop(batch, work)
    elif batch.given_up:
        code = _GIVEN_UP
        report.note("an endpoint did not answer any more: what was not begun is tried again later")
    report.close()
    return code


def _carry_out(batch: Batch) -> None:
    batch.work()
    if not batch.stopping.is_set():
        batch.close()


def _stop(batch: Batch, work: threading.Thread) -> None:
    """Everybody stops by themselves within a moment; who hangs is ended here."""
    batch.stopping.set()
    work.join(_STOP_S)
    error = Cancelled()
    for element in batch.report.cut_off():
        element.say(words_of(error))
        batch.report.end(element, ok=False, code=code_of(error), again=True)


# --- several processes ------------------------------------------------------------------------------------


def _hands(orders: Orders) -> int:
    """How many processes it is worth."""
    count = len(orders.elements)
    reaches = (orders.source, orders.target or orders.source)
    if count < 2 * _SHARE or any(reach.protocol != Protocol.LOCAL for reach in reaches):
        return 1
    sizes = [order.size for order in orders.elements if order.act == Act.COPY]
    if sum(sizes) > SMALL * len(sizes):
        return 1
    return min(orders.streams, count // _SHARE, len(os.sched_getaffinity(0)), _MOST_HANDS)


def _lead(orders: Orders, hands: int) -> int:
    """The batch in ``hands`` processes. One that dies takes the others along: they are one mover."""
    children: list[int] = []
    lead = os.getpid()
    signal.signal(signal.SIGTERM, lambda _number, _frame: _signal(children, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for number in range(hands):
        child = os.fork()
        if child == 0:
            _leave(lambda: _hand(_shared(orders, number, hands), lead))  # noqa: B023 (left before the next)
        children.append(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    codes = []
    while children:
        child, status = os.wait()
        children.remove(child)
        code = os.waitstatus_to_exitcode(status)
        codes.append(_STOPPED if code == -signal.SIGTERM else code)  # it had not begun yet
        if codes[-1] not in (_DONE, _GIVEN_UP, _STOPPED):
            _signal(children, signal.SIGKILL)
    died = [code for code in codes if code < 0]
    if died:
        os.kill(os.getpid(), -died[0])  # as if there were but one process
    return max(codes)


def _hand(orders: Orders, lead: int) -> int:
    """One of several processes; none outlives the first."""
    kernel.die_with_parent()
    return _work(orders, shared=True) if os.getppid() == lead else _STOPPED


def _shared(orders: Orders, number: int, hands: int) -> Orders:
    return replace(
        orders,
        elements=orders.elements[number::hands],
        sweep=orders.sweep[number::hands],
        streams=max(1, orders.streams // hands),
        rate=orders.rate / hands if orders.rate else None,
    )


def _signal(children: list[int], number: int) -> None:
    for child in children:
        with contextlib.suppress(ProcessLookupError):  # it has ended a moment ago
            os.kill(child, number)


def _leave(work: Any) -> None:
    """End with the code of what is to be done. Threads may hang in a library, and hooks of libraries wait for
    them: nothing else is left to do."""
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        code = work()
    except BaseException:  # noqa: BLE001 (told, and then the end, whatever it was)
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _leave(lambda: main(sys.argv[1]))
