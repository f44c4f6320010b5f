"""REMOVE, RENAME and MKDIR: one call to a storage each, and what an earlier attempt may have done already."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from workers.runtimes.transfer.mover.element import Element, Refused
from workers.runtimes.transfer.mover.paths import Folders
from workers.storage.trees.base import StorageFailed, Trouble, shown
from workers.vocabulary.crashpoints import step
from workers.vocabulary.transfers.orders import Order

if TYPE_CHECKING:
    from workers.runtimes.transfer.mover.batch import Batch


class Changing:
    """Those elements of a batch; used by all its threads. Everything happens at the source's site."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._tree = batch.source
        options = batch.orders.options
        self._parents = bool(options.get("parent") or options.get("parents"))
        self._overwrite = bool(options.get("overwrite"))
        self._mode = mode_of(options.get("permissions"))
        self._folders = Folders(self._tree, None)

    def remove(self, element: Element) -> None:
        order = element.order
        path = self._batch.located_source(order.src, order.escaped)
        if path == b"/":
            raise Refused("the root of a site is not removed", errno.EBUSY)
        step("transfer.before_remove")
        try:
            if order.src.endswith("/"):
                self._tree.remove_folder(path)
            else:
                self._tree.remove(path)
        except StorageFailed as failed:
            if failed.trouble is not Trouble.MISSING:
                raise
            if order.src.endswith("/") and not self._tree.traits.folders:
                element.say(f"{shown(path)} went with its last file: this storage knows no folders")
            elif _tried(order):
                element.say(f"{shown(path)} is gone: an earlier attempt removed it")
            else:
                raise
        else:
            element.say(f"removed {'folder ' if order.src.endswith('/') else ''}{shown(path)}")
        step("transfer.after_remove")

    def rename(self, element: Element) -> None:
        order = element.order
        source = self._batch.located_source(order.src, order.escaped)
        target = self._batch.located_source(order.dst, order.escaped)
        if b"/" in (source, target):
            raise Refused("the root of a site is not renamed, and nothing takes its place", errno.EBUSY)
        if source == target:
            raise Refused(f"{shown(source)} has this name already: nothing was touched")
        if target.startswith(source + b"/"):
            raise Refused(f"{shown(source)} cannot be moved into itself: nothing was touched")
        if self._parents:
            self._folders.need(target.rpartition(b"/")[0])
        step("transfer.before_rename")
        try:
            self._tree.rename(source, target, overwrite=self._overwrite)
        except StorageFailed as failed:
            if failed.trouble is not Trouble.MISSING or not (_tried(order) and self._is_there(target)):
                raise
            element.say(f"{shown(target)} is there, {shown(source)} is gone: an earlier attempt renamed it")
        else:
            element.say(f"renamed {shown(source)} to {shown(target)}")
        step("transfer.after_rename")

    def mkdir(self, element: Element) -> None:
        order = element.order
        path = self._batch.located_source(order.src, order.escaped)
        if self._parents and path != b"/":
            self._folders.need(path.rpartition(b"/")[0])
        step("transfer.before_mkdir")
        try:
            self._tree.mkdir(path, self._mode)
        except StorageFailed as failed:
            found = failed.trouble is Trouble.EXISTS and (self._parents or _tried(order))
            if not found or not self._tree.stat(path).is_folder:
                raise
            element.say(f"folder {shown(path)} is there already")
        else:
            element.say(f"made folder {shown(path)}")
        step("transfer.after_mkdir")

    def _is_there(self, path: bytes) -> bool:
        try:
            self._tree.stat(path)
        except StorageFailed as failed:
            if failed.trouble is Trouble.MISSING:
                return False
            raise
        return True


def mode_of(option: object) -> int | None:
    """extra_opts.permissions, an octal number ("755") or one in digits that look like it (755). Raises
    Refused."""
    if option is None or option == "":
        return None
    try:
        mode = int(str(option), 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise Refused(f"extra_opts.permissions {option!r} is no octal mode, for example 755")
    return mode


def _tried(order: Order) -> bool:
    """May an earlier attempt have done it?"""
    return order.committed or order.attempt > 1
