"""What all elements of a batch share: the two trees, the rate, the report; and its threads."""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Final

from workers.runtimes.transfer.mover import paths
from workers.runtimes.transfer.mover.bounds import SMALL, Bucket
from workers.runtimes.transfer.mover.element import Cancelled, Element, Refused, again, code_of, words_of
from workers.runtimes.transfer.mover.reporting import Reporter
from workers.storage.trees.base import Part, StorageFailed, Tree, Trouble
from workers.storage.trees.opening import open_tree
from workers.vocabulary.transfers.orders import Order, Orders
from workers.vocabulary.transfers.reach import Act, Protocol, Reach

#: What is done to an element, in steps: it yields where it would wait for the disk.
Deed = Callable[[Element], Iterator[None]]
#: So many elements in a row, for each thread, must fail for want of an answer until the rest is left.
_PATIENCE: Final = 2
#: So many small local files are written before the first of them is waited for: the file system brings them
#: to the disk together. Alone, each would wait for a commit of its journal.
_HANDFUL: Final = 32
#: Threads that do so: while one waits for the disk another works. More only fight for the interpreter.
_HANDS: Final = 2


class Batch:
    """``stopping`` is set by TERM: whoever sees it raises Cancelled."""

    def __init__(self, orders: Orders, report: Reporter, scratch: str) -> None:
        self.orders = orders
        self.report = report
        self.scratch = scratch
        self.stopping = threading.Event()
        self.bucket = Bucket(orders.rate, self._wait)
        #: Where a COPY goes; the source's for everything else.
        self.reach: Reach = orders.target or orders.source
        self.source: Tree = _NO_TREE
        self.target: Tree = _NO_TREE
        self._opening = threading.Lock()
        local = {orders.source.protocol, self.reach.protocol} == {Protocol.LOCAL}
        hurried = orders.rate is not None or orders.options.get("timeout")
        self._handful = _HANDFUL if local and not hurried else 1
        self._deeds: dict[str, Deed] = {}
        #: Elements in a row that ended for want of an answer.
        self._silent = 0
        #: The rest is not begun.
        self.given_up = False

    # --- what elements ask ----------------------------------------------------------------------------

    def located_source(self, text: str, escaped: bool) -> bytes:
        return paths.located(paths.asked(text, escaped), self.source, self.orders.source.default_path)

    def located_target(self, text: str, escaped: bool) -> bytes:
        return paths.located(paths.asked(text, escaped), self.target, self.reach.default_path)

    def tag_of(self, order: Order) -> str:
        return f"{self.orders.tag}-{order.n}"

    def check(self) -> None:
        """Raises Cancelled."""
        if self.stopping.is_set():
            raise Cancelled

    def _wait(self, seconds: float) -> None:
        self.stopping.wait(seconds)
        self.check()

    # --- the work -------------------------------------------------------------------------------------

    def work(self) -> None:
        """Everything; returns when it is done, given up, or ``stopping`` is set."""
        todo = Shared(chain(self.orders.sweep, self.orders.elements), len(self.orders.sweep))
        streams = self.orders.streams if self._handful == 1 else min(self.orders.streams, _HANDS)
        many = min(streams, len(self.orders.sweep) + len(self.orders.elements))
        threads = [
            threading.Thread(target=self._carry_out, args=(todo,), name=f"mover-{number}", daemon=True)
            for number in range(max(1, many))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self) -> None:
        for tree in {id(tree): tree for tree in (self.source, self.target) if tree is not _NO_TREE}.values():
            with contextlib.suppress(StorageFailed, OSError):
                tree.close()

    def _carry_out(self, todo: Shared) -> None:
        while (given := todo.some(self._handful)) and not self.stopping.is_set() and not self.given_up:
            order, sweeping = given[0]
            if sweeping:
                self._sweep(order)
            else:
                self._together([Element(order) for order, _ in given])

    def _together(self, elements: Sequence[Element]) -> None:
        """Each ends for itself, whatever becomes of the others."""
        under_way = []
        for element in elements:
            self.report.begin(element)
            steps = self._steps(element)
            if self._goes_on(element, steps):
                under_way.append((element, steps))
        for element, steps in under_way:
            while self._goes_on(element, steps):
                pass

    def _steps(self, element: Element) -> Iterator[None]:
        yield from self._deed(element.order, element)(element)

    def _goes_on(self, element: Element, steps: Iterator[None]) -> bool:
        """The next step. False: it has ended, well or not."""
        try:
            next(steps)
        except StopIteration:
            self._silent = 0
            self.report.end(element, ok=True, code=0)
        except Exception as error:  # noqa: BLE001 (each element ends, whatever happened to it)
            self._failed(element, error)
        else:
            return True
        return False

    def _failed(self, element: Element, error: Exception) -> None:
        cancelled = isinstance(error, Cancelled)
        away = isinstance(error, StorageFailed) and error.trouble is Trouble.AWAY
        if not isinstance(error, StorageFailed | Refused | Cancelled):  # a mistake of ours, or of a library's
            told = "".join(traceback.format_exception(error))
            sys.stderr.write(self.report.masked(told))
        element.say(words_of(error))
        end: dict[str, Any] = {"ok": False, "code": code_of(error), "again": again(error)}
        if away:
            end["avoid"] = element.side
        self.report.end(element, **end)
        if away:
            self._silent += 1
            if self._silent >= _PATIENCE * self.orders.streams + 1:
                self.given_up = True
        elif not cancelled:
            self._silent = 0

    def _sweep(self, order: Order) -> None:
        """What an element that has ended for good has left."""
        try:
            self._open(Act.COPY)
            first = order.attempt if order.part is None else order.part
            path = self.located_target(order.dst, order.escaped)
            for attempt in (first, *range(first + 1, order.attempt)):
                self.target.discard(path, Part(self.tag_of(order), attempt))
        except (StorageFailed, ValueError) as failed:
            self.report.note(f"what is left of element {order.n} could not be removed: {failed}")

    def _deed(self, order: Order, element: Element) -> Deed:
        deed = self._deeds.get(order.act)
        if deed is None:
            with self._opening:
                deed = self._deeds.get(order.act) or self._made(Act(order.act), element)
        return deed

    def _made(self, act: Act, element: Element) -> Deed:
        """Opens the trees that an act needs, and loads its module: most batches hold one kind."""
        self._opened(act, element)
        if act is Act.LIST:
            from workers.runtimes.transfer.mover.listing import Listing

            deed = _in_one_step(Listing(self).carry_out)
        elif act is Act.COPY:
            from workers.runtimes.transfer.mover.copying import Copying

            deed = Copying(self).steps
        else:
            from workers.runtimes.transfer.mover.changing import Changing

            changing = Changing(self)
            deeds = {Act.REMOVE: changing.remove, Act.RENAME: changing.rename, Act.MKDIR: changing.mkdir}
            deed = _in_one_step(deeds[act])
        self._deeds[act] = deed
        return deed

    def _open(self, act: Act) -> None:
        with self._opening:
            self._opened(act, None)

    def _opened(self, act: Act, element: Element | None) -> None:
        streams = self.orders.streams
        if self.source is _NO_TREE and element is not None:
            self.source = open_tree(self.orders.source, streams=streams)
        if self.target is _NO_TREE and act is Act.COPY:
            if element is not None:
                element.side = "dst"
            self.target = open_tree(self.reach, streams=streams)


class Shared:
    """Orders for many threads: (order, is it one to sweep?)."""

    def __init__(self, orders: Iterator[Order], sweeping: int) -> None:
        self._orders = orders
        self._sweeping = sweeping
        self._next = self._taken()
        self._lock = threading.Lock()

    def some(self, most: int) -> list[tuple[Order, bool]]:
        """The next one, or up to ``most`` small files that are to be copied; none: all are taken."""
        found: list[tuple[Order, bool]] = []
        with self._lock:
            while self._next is not None and len(found) < most:
                alone = self._next[1] or not _is_small(self._next[0])
                if alone and found:
                    break
                found.append(self._next)
                self._next = self._taken()
                if alone:
                    break
        return found

    def _taken(self) -> tuple[Order, bool] | None:
        order = next(self._orders, None)
        self._sweeping -= 1
        return None if order is None else (order, self._sweeping >= 0)


def _is_small(order: Order) -> bool:
    return order.act == Act.COPY and 0 <= order.size <= SMALL


def _in_one_step(deed: Callable[[Element], None]) -> Deed:
    def steps(element: Element) -> Iterator[None]:
        deed(element)
        yield from ()

    return steps


class _NoTree:
    """None is open yet."""


_NO_TREE: Final[Any] = _NoTree()
