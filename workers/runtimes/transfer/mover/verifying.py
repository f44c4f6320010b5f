"""Checksums of a copy: which one, computed while the content passes, and what was shown by it."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final
from typing import Protocol as Shape

from workers.runtimes.transfer.mover.element import Element, Refused
from workers.storage.trees.base import ALGORITHMS, Receiving, StorageFailed, Tree, Trouble, shown
from workers.storage.trees.parts import part_path
from workers.vocabulary.transfers.reach import Protocol

if TYPE_CHECKING:
    from workers.runtimes.transfer.mover.batch import Batch
    from workers.runtimes.transfer.mover.filling import File

#: extra_opts.checksum that asks for one without naming it.
_ANY: Final = frozenset({"1", "true", "yes", "on", "any"})
_OFF: Final = frozenset({"", "0", "false", "no", "off", "none"})


class Digest(Shape):
    def update(self, piece: bytes) -> None: ...

    def hexdigest(self) -> str: ...


class Adler32:
    """zlib's, as hashlib has its own."""

    def __init__(self) -> None:
        self._value = 1

    def update(self, piece: bytes) -> None:
        self._value = zlib.adler32(piece, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def digest(algorithm: str) -> Digest:
    return Adler32() if algorithm == "adler32" else hashlib.new(algorithm, usedforsecurity=False)


class Choice:
    """Which checksum a batch compares. ``algorithm`` "": sizes alone.

    ``at_target``, ``at_source``: who can say it. ``asked``: by the client, so what nobody says is read again.
    """

    def __init__(self, option: Any, source: Tree, target: Tree, *, local: bool) -> None:
        """``option`` is extra_opts.checksum, ``local``: the source is a folder of this node. Raises Refused
        for an algorithm that nobody knows here."""
        wanted = "" if option is None else str(option).lower()
        here, there = source.traits.checksums, target.traits.checksums
        if wanted in _OFF or wanted in _ANY:
            order = [name for name in ALGORITHMS if name in here and name in there]
            order += [name for name in ALGORITHMS if name in there]
            order += [name for name in ALGORITHMS if name in here]
            if wanted in _ANY:
                order.append(ALGORITHMS[0])
            self.algorithm: str = order[0] if order else ""
        elif wanted in ALGORITHMS:
            self.algorithm = wanted
        else:
            raise Refused(f"extra_opts.checksum {option!r} is none of {', '.join(ALGORITHMS)}, true, false")
        self.at_source = self.algorithm in here
        self.at_target = self.algorithm in there
        self.asked = wanted not in _OFF
        #: Is there anybody whose word is compared? A local source's is what we read ourselves.
        self.compared = self.at_target or self.asked or (self.at_source and not local)


def content_checksum(
    tree: Tree, path: bytes, algorithm: str, check: Callable[[], None], *, asking: bool = True
) -> str:
    """Of a file as its storage says it (``asking``), else of what is read from it.

    ``check`` is called after each piece and may raise.
    """
    if asking and algorithm in tree.traits.checksums and (said := tree.checksum(path, algorithm)):
        return said
    made = digest(algorithm)
    with tree.read(path) as pieces:
        for piece in pieces:
            made.update(piece)
            check()
    return made.hexdigest()


class Proof:
    """What can be shown of one copy. ``sent``: the checksum of all that passed through our hands, or None."""

    def __init__(self, batch: Batch, choice: Choice, file: File, sent: str | None) -> None:
        self._batch = batch
        self._choice = choice
        self._file = file
        self._known = self._sent = sent or ""

    def before_commit(self, element: Element, receiving: Receiving) -> str:
        """What was shown, in words; "": it can only be read back once it is visible.

        Raises StorageFailed DAMAGED. Sets the element's checksum where the target agrees with the source, or
        the source's storage with what we have read.
        """
        choice, file, target = self._choice, self._file, self._batch.target
        algorithm = choice.algorithm
        if not algorithm:
            return "by size, since no checksum is known of both ends"
        if not choice.compared:
            return f"by size, since the target tells no {algorithm}"
        own, said = self._told_by_both(element, receiving)
        element.side = "src"
        if self._sent and own:
            _compare(file.src, algorithm, self._sent, own, "as the source says it")
        self._known = self._sent or own
        if not self._known:
            return f"by size, since not all of it passed here for its {algorithm}"
        element.side = "dst"
        whose = "at the target"
        if not said and choice.at_target:
            said = receiving.checksum(algorithm)
        if not said and choice.asked:
            if not target.traits.renames:
                return ""
            beside = part_path(file.dst, file.part.tag, file.part.attempt)
            said, whose = self._read_again(beside), "at the target, read back"
        if not said and not own:
            return f"by size, since the target tells no {algorithm}"
        element.checksum = f"{algorithm}:{self._known}"
        if not said:
            return f"{algorithm} {self._known} of the source and of what was sent, the target by size"
        _compare(file.dst, algorithm, self._known, said, whose)
        return f"{algorithm} {self._known} of the source and {whose}"

    def after_commit(self, element: Element) -> str:
        """What is visible, read back. Raises StorageFailed DAMAGED; then it is gone again."""
        algorithm, target = self._choice.algorithm, self._batch.target
        try:
            _compare(self._file.dst, algorithm, self._known, self._read_again(self._file.dst), "read back")
        except StorageFailed:
            target.remove(self._file.dst)
            raise
        element.checksum = f"{algorithm}:{self._known}"
        return f"{algorithm} {self._known} of the source and at the target, read back"

    def _told_by_both(self, element: Element, receiving: Receiving) -> tuple[str, str]:
        """(the source's, the target's), each "" where it is not told or comes later. What has not passed
        through our hands is read at both ends, at the same time."""
        element.side = "src"
        if self._sent or not (self._choice.at_target and self._choice.at_source):
            return self._own(), ""
        own: Future[str] = Future()
        threading.Thread(target=_answer, args=(own, self._own), name="checksum", daemon=True).start()
        element.side = "dst"
        said = receiving.checksum(self._choice.algorithm)
        element.side = "src"
        return own.result(), said

    def _own(self) -> str:
        """The source's checksum as its storage says it; "" where it cannot, or reading was the way to it."""
        choice, source = self._choice, self._batch.source
        if self._sent and self._batch.orders.source.protocol == Protocol.LOCAL:
            return ""
        own = source.checksum(self._file.src, choice.algorithm) if choice.at_source else ""
        if not own and not self._sent and choice.asked:
            return content_checksum(source, self._file.src, choice.algorithm, self._batch.check, asking=False)
        return own

    def _read_again(self, path: bytes) -> str:
        batch = self._batch
        return content_checksum(batch.target, path, self._choice.algorithm, batch.check, asking=False)


def _answer(future: Future[str], asked: Callable[[], str]) -> None:
    try:
        future.set_result(asked())
    except BaseException as error:  # noqa: BLE001 (whoever waits hears of it)
        future.set_exception(error)


def _compare(path: bytes, algorithm: str, sent: str, said: str, whose: str) -> None:
    if sent.lower() != said.lower():
        raise StorageFailed(
            f"{shown(path)}: {algorithm} is {sent} of what was sent and {said} {whose}: damaged on the way",
            Trouble.DAMAGED,
        )
