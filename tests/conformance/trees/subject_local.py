"""LOCAL: a folder of this machine; the same where the kernel does not help to stay in it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.test import override_settings

from tests.conformance.trees.subjects import SITE, FolderSubject
from workers.storage.trees.base import Tree
from workers.storage.trees.local.tree import LocalTree
from workers.vocabulary.transfers.reach import Protocol, Reach

_NOBODY = 65534
_libc = ctypes.CDLL(None, use_errno=True)


class LocalSubject(FolderSubject):
    id = "local"
    protocol = Protocol.LOCAL
    mortal = False
    asks = False
    links = True
    fills = False

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._settings = override_settings(GANTRY_LOCAL_SITES=[str(self.root)])

    def start(self) -> None:
        self._settings.enable()

    def stop(self) -> None:
        self._settings.disable()

    def reach(self) -> Reach:
        return Reach(protocol=Protocol.LOCAL, path=str(self.root / SITE), site="here")

    @contextmanager
    def forbidden(self, path: bytes) -> Iterator[None]:
        """Root is another user for files in this thread meanwhile (setfsuid drops what root may)."""
        with super().forbidden(path):
            if os.geteuid() == 0:
                _libc.setfsuid(_NOBODY)
            try:
                yield
            finally:
                if os.geteuid() == 0:
                    _libc.setfsuid(0)


class WalkedSubject(LocalSubject):
    """As on a kernel without openat2."""

    id = "local-walked"

    def tree(self) -> Tree:
        tree = super().tree()
        assert isinstance(tree, LocalTree)
        tree.root.kernel = False
        return tree
