"""The tree that a reach names; its SDK is loaded when it is needed. Which protocols this machine can
speak."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from workers.storage.trees.base import StorageFailed, Tree, Trouble
from workers.vocabulary.transfers.reach import Protocol, Reach

#: Each module has ``open_tree(reach, streams) -> Tree`` and ``missing() -> str``: what this machine lacks.
_MODULES: Final = {
    Protocol.LOCAL: "workers.storage.trees.local",
    Protocol.SFTP: "workers.storage.trees.sftp",
    Protocol.GRIDFTP: "workers.storage.trees.gridftp",
    Protocol.WEBDAV: "workers.storage.trees.webdav",
    Protocol.S3: "workers.storage.trees.s3",
    Protocol.SWIFT: "workers.storage.trees.swift",
    Protocol.XROOTD: "workers.storage.trees.xrootd",
}


def open_tree(reach: Reach, *, streams: int = 4) -> Tree:
    """The tree of an endpoint, for ``streams`` files at once; the caller closes it. Raises StorageFailed."""
    try:
        module = import_module(_MODULES[Protocol(reach.protocol)])
    except (ValueError, KeyError, ImportError) as error:
        raise StorageFailed(
            f"{reach.shown}: this node cannot speak {reach.protocol}: {error}", Trouble.OTHER
        ) from error
    tree: Tree = module.open_tree(reach, streams)
    return tree


def missing() -> dict[str, str]:
    """Protocol -> what this machine lacks for it, "" where nothing."""
    return {protocol.value: _lacks(name) for protocol, name in _MODULES.items()}


def _lacks(name: str) -> str:
    try:
        module = import_module(name)
    except ImportError as error:
        return str(error)
    words: str = module.missing()
    return words
