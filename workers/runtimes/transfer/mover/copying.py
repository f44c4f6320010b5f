"""COPY: one file, or an empty folder, into a target.

A file is written beside its name and made visible in one step, after its source was seen not to have changed
meanwhile and checksum or size agree. What an earlier attempt left is taken over; it is gone on with only where
the source is still what it was then.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workers.runtimes.transfer.mover import paths
from workers.runtimes.transfer.mover.element import Cancelled, Element, Refused, again
from workers.runtimes.transfer.mover.target import Folders, Space
from workers.runtimes.transfer.mover.verifying import Choice, Digest, compare, content_checksum, digest
from workers.storage.trees.base import (
    Entry,
    Keeping,
    Part,
    Receiving,
    StorageFailed,
    TransferOptions,
    Tree,
    Trouble,
    shown,
)
from workers.storage.trees.parts import part_path
from workers.vocabulary.crashpoints import step
from workers.vocabulary.transfers.reach import Protocol

if TYPE_CHECKING:
    from workers.runtimes.transfer.mover.batch import Batch

#: A local file so small is read and written faster than it is handed over.
_SMALL: Final = 256 * 1024
#: What was begun is worth nothing for another try after these.
_SPOILT: Final = frozenset({Trouble.DAMAGED, Trouble.CHANGED})


@dataclass(frozen=True, slots=True)
class File:
    """One file on its way."""

    src: bytes
    dst: bytes
    before: Entry  # its source, before anything was read
    part: Part


class Copying:
    """The COPY elements of a batch; used by all its threads."""

    def __init__(self, batch: Batch) -> None:
        """Raises Refused for options that make no sense."""
        self._batch = batch
        self._source, self._target = batch.source, batch.target
        options = batch.orders.options
        self._overwrite = bool(options.get("overwrite"))
        self._choice = Choice(options.get("checksum"), self._source, self._target)
        self._preserve = bool(options.get("preserve"))
        self._timeout = float(options.get("timeout") or 0)
        here, there = batch.orders.source, batch.reach
        self._both_local = here.protocol == there.protocol == Protocol.LOCAL
        self._one_host = (here.protocol, here.host, here.port) == (there.protocol, there.host, there.port)
        rate = batch.bucket.rate
        self._options = TransferOptions(
            streams=int(options.get("nbstreams") or 1),
            timeout_s=self._timeout or TransferOptions().timeout_s,
            rate=rate / batch.orders.streams if rate else None,
        )
        self._top = (
            batch.located_target(batch.orders.dst, batch.orders.dst_escaped) if batch.orders.dst else None
        )
        self._folders = Folders(
            self._target, self._top if options.get("parent", options.get("parents")) is False else None
        )
        self._space = Space(self._target)

    def carry_out(self, element: Element) -> None:
        """Copy it. Raises StorageFailed, Refused, Cancelled; then the part is gone, or ``element.part``."""
        order, batch = element.order, self._batch
        src = batch.located_source(order.src, order.escaped)
        element.side = "dst"
        dst = batch.located_target(order.dst, order.escaped)
        if order.src.endswith("/"):
            self._folder(element, dst)
            return
        element.side = "src"
        before = self._source.stat(src)
        if not before.is_file:
            raise Refused(f"{shown(src)} is no file", errno.EISDIR if before.is_folder else errno.EINVAL)
        element.size, element.mtime = before.size, before.mtime_ns // 1_000_000_000
        element.version = version_of(before)
        element.side = "dst"
        dst = self._named(element, src, dst)
        resume = order.part is not None and order.version != "" and order.version == element.version
        part = Part(batch.tag_of(order), order.attempt, order.part, resume)
        file = File(src, dst, before, part)
        element.part = order.part is not None
        try:
            if self._is_there(element, file):
                self._discard(element, file)
                return
            self._copy(element, file)
        except BaseException as error:
            if element.part and (order.last or not again(error)):
                self._discard(element, file)
            raise

    # --- before ----------------------------------------------------------------------------------------

    def _folder(self, element: Element, dst: bytes) -> None:
        step("transfer.before_mkdir")
        if not self._target.traits.folders:
            marked(self._target, dst)
        elif not self._folders.need(dst) and not self._target.stat(dst).is_folder:
            raise StorageFailed(f"{shown(dst)} is there and no folder", Trouble.NOT_FOLDER)
        step("transfer.after_mkdir")
        element.say(f"folder {shown(dst)} is there")

    def _named(self, element: Element, src: bytes, dst: bytes) -> bytes:
        """A single file keeps its name inside a destination that is a folder, or ends in a slash."""
        order = element.order
        if order.dst.endswith("/"):
            return paths.below(dst, paths.last(src))
        if self._top is None or dst != self._top:
            return dst
        try:
            inside = self._target.stat(dst).is_folder
        except StorageFailed as failed:
            if failed.trouble not in (Trouble.MISSING, Trouble.NOT_FOLDER):
                raise
            return dst
        return paths.below(dst, paths.last(src)) if inside else dst

    def _is_there(self, element: Element, file: File) -> bool:
        """Is it there already, whole? Makes its folders. Raises when it may not be replaced."""
        order, dst = element.order, file.dst
        if self._one_host and self._batch.whole_path(file.src) == self._batch.whole_path(dst, target=True):
            raise Refused(f"{shown(dst)} is its own source: nothing was touched", errno.EINVAL)
        if self._folders.need(dst.rpartition(b"/")[0]) and order.attempt == 1:
            return False
        try:
            there = self._target.stat(dst)
        except StorageFailed as failed:
            if failed.trouble is Trouble.MISSING:
                return False
            raise
        if there.is_folder:
            raise StorageFailed(f"{shown(dst)} is a folder: a file cannot take its place", Trouble.IS_FOLDER)
        if self._both_local and there.version and there.version == file.before.version:
            raise Refused(
                f"{shown(dst)} is its own source under another name: nothing was touched", errno.EINVAL
            )
        ours = order.committed or (order.attempt > 1 and not self._overwrite)
        if ours and there.size == file.before.size and self._same_content(element, file):
            element.moved = 0
            element.say(
                f"found complete at {shown(dst)}: an earlier attempt made it visible; nothing was sent"
            )
            return True
        if not self._overwrite:
            raise StorageFailed(
                f"{shown(dst)} is there already, and extra_opts.overwrite was not given", Trouble.EXISTS
            )
        return False

    def _same_content(self, element: Element, file: File) -> bool:
        algorithm = self._choice.algorithm or "adler32"
        element.side = "src"
        one = content_checksum(self._source, file.src, algorithm, self._batch.check)
        element.side = "dst"
        other = content_checksum(self._target, file.dst, algorithm, self._batch.check)
        if one.lower() != other.lower():
            return False
        element.checksum = f"{algorithm}:{one}"
        element.say(f"verified: {algorithm} {one} of both files")
        return True

    # --- the copy --------------------------------------------------------------------------------------

    def _copy(self, element: Element, file: File) -> None:
        step("transfer.before_part")
        self._space.take(file.dst, file.before.size)
        element.part = True
        receiving = self._target.receive(file.dst, file.part, file.before.size)
        try:
            step("transfer.after_part")
            self._fill(element, file, receiving)
        except BaseException as error:
            self._leave(element, receiving, error)
            raise
        receiving.close()

    def _fill(self, element: Element, file: File, receiving: Receiving) -> None:
        began = time.monotonic()
        held = receiving.held
        element.moved = element.told_moved = held
        if held:
            element.say(f"gone on at byte {held}, where an earlier attempt ended; its source is unchanged")
        elif file.part.before is not None:
            element.say("what an earlier attempt left could not be gone on with: begun anew")
        direct = held == 0 and self._direct(element, file, receiving)
        sent = None if direct else self._stream(element, file, receiving)
        element.side = "dst"
        step("transfer.before_finish")
        receiving.finish()
        step("transfer.after_finish")
        element.side = "src"
        self._unchanged(file)
        verified = self._verify(element, file, receiving, sent)
        element.side = "dst"
        step("transfer.before_commit")
        if not self._batch.report.commit(element):
            raise Cancelled
        keeping = (
            Keeping(file.before.mtime_ns or None, file.before.mode & 0o7777) if self._preserve else Keeping()
        )
        receiving.commit(overwrite=self._overwrite, keeping=keeping)
        element.part = False
        step("transfer.after_commit")
        if verified is None:
            verified = self._after_commit(element, file, sent)
        took = max(time.monotonic() - began, 1e-6)
        count = file.before.size - held
        how = " without passing through this node" if direct else ""
        element.say(
            f"copied {count} bytes of {shown(file.src)} to {shown(file.dst)} in {took:.3f} s "
            f"({count / took / 1e6:.1f} MB/s){how}; verified: {verified}"
        )

    def _direct(self, element: Element, file: File, receiving: Receiving) -> bool:
        """A route that leaves us out, where there is one."""
        if self._both_local and file.before.size < _SMALL:
            return False
        moved = self._mover(element)
        if self._target.copy_here(self._source, file.src, receiving, moved, self._options):
            return True
        return self._source.copy_there(file.src, self._target, receiving, moved, self._options)

    def _mover(self, element: Element) -> Callable[[int], None]:
        stopping, until = self._batch.stopping, element.began + (self._timeout or float("inf"))

        def moved(count: int) -> None:
            element.moved += count
            if stopping.is_set():
                raise Cancelled
            if time.monotonic() > until:
                raise StorageFailed(f"not done within {self._timeout:g} s (extra_opts.timeout)", Trouble.AWAY)
            step("transfer.in_content")

        return moved

    def _stream(self, element: Element, file: File, receiving: Receiving) -> str | None:
        """Through our hands; the checksum of all of it, None where we have not seen all of it."""
        choice, held = self._choice, receiving.held
        seen: Digest | None = digest(choice.algorithm) if choice.algorithm and not held else None
        moved, take = self._mover(element), self._batch.bucket.take
        element.side = "src"
        with self._source.read(file.src, offset=held, version=file.before.version) as pieces:
            for piece in pieces:
                element.side = "dst"
                receiving.send(piece)
                if seen is not None:
                    seen.update(piece)
                moved(len(piece))
                take(len(piece))
                element.side = "src"
        if element.moved != file.before.size:
            raise StorageFailed(
                f"{shown(file.src)} gave {element.moved} bytes instead of {file.before.size}: it has changed "
                "while it was read",
                Trouble.CHANGED,
            )
        return seen.hexdigest() if seen is not None else None

    def _unchanged(self, file: File) -> None:
        after = self._source.stat(file.src)
        if version_of(after) != version_of(file.before):
            raise StorageFailed(
                f"{shown(file.src)} has changed while it was read ({file.before.size} bytes before, {after.size} "
                "after)",
                Trouble.CHANGED,
            )

    # --- afterwards ------------------------------------------------------------------------------------

    def _verify(self, element: Element, file: File, receiving: Receiving, sent: str | None) -> str | None:
        """What was shown, in words; None: it can only be read back when it is visible."""
        choice = self._choice
        algorithm = choice.algorithm
        if not algorithm:
            return "by size, no checksum is known of both ends"
        own = self._own(file, sent)
        if sent and own:
            compare(file.src, algorithm, sent, own, "as the source says it")
        known = sent or own
        if not known:
            return f"by size; {algorithm} of the whole was not seen, since it was gone on with"
        element.checksum = f"{algorithm}:{known}"
        element.side = "dst"
        said = receiving.checksum(algorithm) if choice.at_target else ""
        whose = "target"
        if not said and choice.asked:
            if not self._target.traits.renames:
                return None
            beside = part_path(file.dst, file.part.tag, file.part.attempt)
            said, whose = self._read_again(beside), "target, read back"
        if said:
            compare(file.dst, algorithm, known, said, f"at the {whose}")
            return f"{algorithm} {known} of the source and at the {whose}"
        if own:
            return f"{algorithm} {known} of the source, at the target by size"
        element.checksum = ""
        return f"by size, the target tells no {algorithm}"

    def _own(self, file: File, sent: str | None) -> str:
        """The source's checksum as its storage says it; "" where it cannot, or we know it from reading it."""
        if sent and self._batch.orders.source.protocol == Protocol.LOCAL:
            return ""
        own = self._source.checksum(file.src, self._choice.algorithm) if self._choice.at_source else ""
        if not own and not sent and self._choice.asked:
            own = content_checksum(self._source, file.src, self._choice.algorithm, self._batch.check)
        return own

    def _read_again(self, path: bytes) -> str:
        return content_checksum(self._target, path, self._choice.algorithm, self._batch.check, asking=False)

    def _after_commit(self, element: Element, file: File, sent: str | None) -> str:
        algorithm = self._choice.algorithm
        known = element.checksum.partition(":")[2]
        try:
            compare(file.dst, algorithm, known, self._read_again(file.dst), "at the target, read back")
        except StorageFailed:
            self._target.remove(file.dst)
            raise
        return f"{algorithm} {known} of the source and at the target, read back"

    def _leave(self, element: Element, receiving: Receiving, error: BaseException) -> None:
        """Keep the part for the next attempt where that can go on with it; else remove it."""
        spoilt = isinstance(error, StorageFailed) and error.trouble in _SPOILT
        hope = isinstance(error, Cancelled) or again(error)
        keep = (
            self._target.traits.appends
            and hope
            and not spoilt
            and not element.order.last
            and element.moved > 0
        )
        with contextlib.suppress(StorageFailed):
            if keep:
                receiving.close()
                element.say(f"its first {element.moved} bytes stay beside the target for the next try")
            else:
                receiving.discard()
                element.part = False

    def _discard(self, element: Element, file: File) -> None:
        """Whatever attempts have left of it."""
        if not element.part:
            return
        element.side = "dst"
        try:
            self._target.discard(file.dst, file.part)
            element.part = False
        except StorageFailed as failed:
            element.say(f"a part is left beside the target: {failed}")


def marked(tree: Tree, folder: bytes) -> None:
    """An empty folder where folders are no things of their own."""
    try:
        tree.mkdir(folder)
    except StorageFailed as failed:
        if failed.trouble is not Trouble.EXISTS:
            raise


def version_of(entry: Entry) -> str:
    """What is compared to tell whether a source is still what it was; "" where nothing tells."""
    if not entry.version and not entry.mtime_ns:
        return ""
    return f"{entry.size}:{entry.mtime_ns}:{entry.version}"
