"""COPY: what is decided before a byte moves. The copy itself is in ``filling``.

Where does a file go, is it there already, may it be replaced, does it fit; and what becomes of what earlier
attempts have left.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from workers.runtimes.transfer.mover import paths
from workers.runtimes.transfer.mover.bounds import Space
from workers.runtimes.transfer.mover.element import Element, Refused, again
from workers.runtimes.transfer.mover.filling import File, Filler, version_of
from workers.runtimes.transfer.mover.verifying import content_checksum
from workers.storage.trees.base import Part, StorageFailed, Trouble, shown
from workers.vocabulary.transfers.orders import Order

if TYPE_CHECKING:
    from workers.runtimes.transfer.mover.batch import Batch


def untold(order: Order) -> range:
    """Attempts after the one that is known to have left a part, which nobody has heard of since they began:
    they may have taken it over, or not."""
    return range((order.attempt if order.part is None else order.part) + 1, order.attempt)


class Copying:
    """The COPY elements of a batch; used by all its threads."""

    def __init__(self, batch: Batch) -> None:
        """Raises Refused for options that make no sense."""
        self._batch = batch
        self._source, self._target = batch.source, batch.target
        orders = batch.orders
        self._overwrite = bool(orders.options.get("overwrite"))
        self._filler = Filler(batch)
        here, there = orders.source, batch.reach
        self._one_host = (here.protocol, here.host, here.port) == (there.protocol, there.host, there.port)
        self._bases = here.path.rstrip("/").encode(), there.path.rstrip("/").encode()
        #: The job's own destination: an element that goes there is a single file.
        self._top: bytes | None = None
        if orders.dst:
            self._top = batch.located_target(orders.dst, orders.dst_escaped)
        parents = orders.options.get("parent", orders.options.get("parents"))
        self._folders = paths.Folders(self._target, self._top if parents is False else None)
        self._space = Space(self._target)

    def steps(self, element: Element) -> Iterator[None]:
        """Copy it; yields where all is written and only the disk is waited for.

        Raises StorageFailed, Refused, Cancelled; then the part is gone, or ``element.part``."""
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
        file = File(src, dst, before, Part(batch.tag_of(order), order.attempt, order.part, resume))
        element.part = order.part is not None
        try:
            for attempt in untold(order):
                self._target.discard(dst, Part(file.part.tag, attempt))
            if self._is_there(element, file):
                self._discard(element, file)
                return
            self._space.take(dst, before.size)
            yield from self._filler.copy(element, file)
        except BaseException as error:
            if element.part and (order.last or not again(error)):
                self._discard(element, file)
            raise

    def prepare(self, element: Element) -> None:
        """Makes the folders that an element needs, to be known to whoever goes on from here."""
        order = element.order
        dst = self._batch.located_target(order.dst, order.escaped)
        if not order.src.endswith("/") and dst != self._top:
            self._folders.need(dst.rpartition(b"/")[0])

    def _folder(self, element: Element, dst: bytes) -> None:
        made = self._folders.need(dst)
        if not made and self._target.traits.folders and not self._target.stat(dst).is_folder:
            raise StorageFailed(f"{shown(dst)} is there and no folder", Trouble.NOT_FOLDER)
        if not self._target.traits.folders:
            self._mark(dst)
        element.say(f"folder {shown(dst)} is there")

    def _mark(self, folder: bytes) -> None:
        """An empty folder where folders are no things of their own."""
        try:
            self._target.mkdir(folder)
        except StorageFailed as failed:
            if failed.trouble is not Trouble.EXISTS:
                raise

    def _named(self, element: Element, src: bytes, dst: bytes) -> bytes:
        """A single file keeps its name inside a destination that is a folder, or ends in a slash."""
        if dst != self._top:
            return dst
        if element.order.dst.endswith("/"):
            return self._kept(element, src, dst)
        try:
            inside = self._target.stat(dst).is_folder
        except StorageFailed as failed:
            if failed.trouble not in (Trouble.MISSING, Trouble.NOT_FOLDER):
                raise
            return dst
        return self._kept(element, src, dst) if inside else dst

    def _kept(self, element: Element, src: bytes, dst: bytes) -> bytes:
        """The file by its own name in ``dst``, and the same in the words of the order, for the books."""
        order = element.order
        name = order.src.rstrip("/").rpartition("/")[2]
        element.dst = f"{order.dst.rstrip('/')}/{name}"
        return paths.below(dst, paths.last(src))

    def _is_there(self, element: Element, file: File) -> bool:
        """Is it there already, whole? Makes its folders. Raises when it may not be replaced."""
        order, dst = element.order, file.dst
        if self._one_host and self._bases[0] + file.src == self._bases[1] + dst:
            raise Refused(f"{shown(dst)} is its own source: nothing was touched")
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
        if self._filler.both_local and there.version and there.version == file.before.version:
            raise Refused(f"{shown(dst)} is its own source under another name: nothing was touched")
        ours = order.committed or (order.attempt > 1 and not self._overwrite)
        if ours and there.size == file.before.size and self._same_content(element, file):
            element.say(f"found complete at {shown(dst)}: an earlier attempt did it, nothing was sent")
            return True
        if not self._overwrite:
            raise StorageFailed(
                f"{shown(dst)} is there already, and extra_opts.overwrite was not given", Trouble.EXISTS
            )
        return False

    def _same_content(self, element: Element, file: File) -> bool:
        algorithm = self._filler.choice.algorithm or "adler32"
        element.side = "src"
        one = content_checksum(self._source, file.src, algorithm, self._batch.check)
        element.side = "dst"
        other = content_checksum(self._target, file.dst, algorithm, self._batch.check)
        if one.lower() != other.lower():
            return False
        element.checksum = f"{algorithm}:{one}"
        element.say(f"verified: {algorithm} {one} of both files")
        return True

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
