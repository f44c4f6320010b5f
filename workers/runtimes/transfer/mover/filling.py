"""The copy of one file: written beside its name, made visible in one step.

Before that its source was seen not to have changed meanwhile, and checksum or size agree. What an earlier
attempt left is taken over; it is gone on with only where the source is still what it was then.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from workers.runtimes.transfer.mover.bounds import SMALL
from workers.runtimes.transfer.mover.element import Cancelled, Element, again
from workers.runtimes.transfer.mover.verifying import Choice, Digest, Proof, digest
from workers.storage.trees.base import (
    Entry,
    Keeping,
    Part,
    Receiving,
    StorageFailed,
    TransferOptions,
    Trouble,
    shown,
)
from workers.vocabulary.crashpoints import step
from workers.vocabulary.transfers.reach import Protocol

if TYPE_CHECKING:
    from workers.runtimes.transfer.mover.batch import Batch

#: What was begun is worth nothing for another try after these.
_SPOILT: Final = frozenset({Trouble.DAMAGED, Trouble.CHANGED})
_NOTHING: Final = Keeping()


class File(NamedTuple):
    """One file on its way."""

    src: bytes
    dst: bytes
    before: Entry  # its source, before anything was read
    part: Part


class Filler:
    """Copies files as a batch's options say; used by all its threads."""

    def __init__(self, batch: Batch) -> None:
        """Raises Refused for options that make no sense."""
        self._batch = batch
        self._source, self._target = batch.source, batch.target
        orders = batch.orders
        options, self._rate = orders.options, batch.bucket.rate
        self._from_local = orders.source.protocol == Protocol.LOCAL
        self.choice = Choice(options.get("checksum"), self._source, self._target, local=self._from_local)
        self.both_local = self._from_local and batch.reach.protocol == Protocol.LOCAL
        self._overwrite = bool(options.get("overwrite"))
        self._preserve = bool(options.get("preserve"))
        self._timeout = float(options.get("timeout") or 0)
        self._options = TransferOptions(
            streams=int(options.get("nbstreams") or 1),
            timeout_s=self._timeout or TransferOptions().timeout_s,
            rate=self._rate / orders.streams if self._rate else None,
        )

    def copy(self, element: Element, file: File) -> Iterator[None]:
        """Yields before it waits for the disk.

        Raises StorageFailed, Cancelled; then its part is gone, or ``element.part`` says that it is not."""
        step("transfer.before_part")
        element.part = True
        receiving = self._target.receive(file.dst, file.part, file.before.size)
        try:
            step("transfer.after_part")
            yield from self._fill(element, file, receiving)
        except BaseException as error:
            self._leave(element, receiving, error)
            raise
        receiving.close()

    def _fill(self, element: Element, file: File, receiving: Receiving) -> Iterator[None]:
        began, held = time.monotonic(), receiving.held
        element.moved = element.told_moved = held
        if held:
            element.say(f"gone on at byte {held}, where an earlier attempt ended; its source is unchanged")
        elif file.part.before is not None:
            element.say("what an earlier attempt left could not be gone on with: begun anew")
        direct = not held and self._direct(element, file, receiving)
        sent = None if direct else self._stream(element, file, receiving)
        yield
        self._batch.check()
        element.side = "dst"
        step("transfer.before_finish")
        receiving.finish()
        step("transfer.after_finish")
        if direct or not self._from_local:
            element.side = "src"
            self._unchanged(file)
        proof = Proof(self._batch, self.choice, file, sent)
        verified = proof.before_commit(element, receiving)
        element.side = "dst"
        step("transfer.before_commit")
        if not self._batch.report.commit(element):
            raise Cancelled
        receiving.commit(overwrite=self._overwrite, keeping=self._kept(file.before))
        element.part = False
        step("transfer.after_commit")
        verified = verified or proof.after_commit(element)
        took, count = time.monotonic() - began, file.before.size - held
        rate = f", {count / took / 1e6:.1f} MB/s" if count > 1_000_000 and took else ""
        how = ", not through this node" if direct else ""
        element.say(
            f"copied {count} bytes from {shown(file.src)} to {shown(file.dst)} in {took:.3f} s{rate}{how}; "
            f"verified: {verified}"
        )

    def _kept(self, before: Entry) -> Keeping:
        return Keeping(before.mtime_ns or None, before.mode & 0o7777) if self._preserve else _NOTHING

    def _direct(self, element: Element, file: File, receiving: Receiving) -> bool:
        """A route that leaves us out, where there is one."""
        if self.both_local and file.before.size < SMALL:
            return False
        moved = self._moving(element)
        if self._target.copy_here(self._source, file.src, receiving, moved, self._options):
            return True
        return self._source.copy_there(file.src, self._target, receiving, moved, self._options)

    def _moving(self, element: Element) -> Callable[[int], None]:
        """Counts what has come through; raises when there is a reason to end."""
        stopping, timeout = self._batch.stopping, self._timeout
        take = self._batch.bucket.take if self._rate is not None else None

        def moved(count: int) -> None:
            element.moved += count
            step("transfer.in_content")
            if stopping.is_set():
                raise Cancelled
            if timeout and time.monotonic() - element.began > timeout:
                raise StorageFailed(f"not done within {timeout:g} s (extra_opts.timeout)", Trouble.AWAY)
            if take is not None:
                take(count)

        return moved

    def _stream(self, element: Element, file: File, receiving: Receiving) -> str | None:
        """Through our hands; the checksum of all of it, None where we have not seen all of it."""
        held = receiving.held
        compared = self.choice.compared and not held
        seen: Digest | None = digest(self.choice.algorithm) if compared else None
        moved = self._moving(element)
        element.side = "src"
        with self._source.read(file.src, offset=held, version=file.before.version) as pieces:
            for piece in pieces:
                element.side = "dst"
                receiving.send(piece)
                if seen is not None:
                    seen.update(piece)
                moved(len(piece))
                element.side = "src"
        if element.moved != file.before.size:
            raise StorageFailed(
                f"{shown(file.src)} gave {element.moved} bytes instead of {file.before.size}: it has changed "
                "while it was read",
                Trouble.CHANGED,
            )
        return seen.hexdigest() if seen is not None else None

    def _unchanged(self, file: File) -> None:
        """A local file has been asked by its own descriptor, at the end of reading."""
        after = self._source.stat(file.src)
        if not _same(after, file.before):
            raise StorageFailed(
                f"{shown(file.src)} has changed while it was read: it had {file.before.size} bytes before, "
                f"{after.size} after",
                Trouble.CHANGED,
            )

    def _leave(self, element: Element, receiving: Receiving, error: BaseException) -> None:
        """Keep the part for the next attempt where that can go on with it; else remove it."""
        spoilt = isinstance(error, StorageFailed) and error.trouble in _SPOILT
        worth = self._target.traits.appends and element.moved > 0 and bool(element.version)
        with contextlib.suppress(StorageFailed):
            if worth and again(error) and not spoilt and not element.order.last:
                receiving.close()
                element.say(f"what came of {element.moved} bytes stays beside the target for the next try")
            else:
                receiving.discard()
                element.part = False


def version_of(entry: Entry) -> str:
    """By what the next attempt knows whether a source is still what it was; "" where nothing tells now."""
    return f"{entry.size}:{entry.mtime_ns}:{entry.version}" if entry.version else ""


def _same(one: Entry, other: Entry) -> bool:
    """A version that is told of one of them only shows nothing: some tell none of what is quite new."""
    told = one.version == other.version or not (one.version and other.version)
    return told and (one.size, one.mtime_ns) == (other.size, other.mtime_ns)
