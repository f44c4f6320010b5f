"""Who is tested: one subject for each server that a tree speaks to. How to add one is told here.

Write ``subject_<protocol>.py`` beside this file, with a class that inherits from ``Subject`` (or
``FolderSubject`` when the server serves a folder of this machine) and has an ``id``: it is found by its file
name. One server is started for all tests of a worker of pytest, and each test gets a folder of its own.

Paths given to a subject are bytes, absolute within the site (``b"/a/b"``); ``b"/../outside/x"`` is beside the
site's base path, but still on the server.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.support.proxy import Proxy
from workers.storage.trees.base import Tree
from workers.storage.trees.opening import open_tree
from workers.vocabulary.transfers.reach import Protocol, Reach

#: What a ``stranger`` says is its password, key ...; in no message.
SECRET = "S3kr1t-of-a-stranger"
#: The folder of the server in which the site begins.
SITE = "site"


class Subject:
    """A server, and what it holds, seen without our code."""

    id: ClassVar[str]
    protocol: ClassVar[Protocol]
    #: ``kill`` and ``start`` again work in the middle of a test.
    mortal: ClassVar[bool] = True
    #: It asks who we are: there is a ``stranger``.
    asks: ClassVar[bool] = True
    #: The transport itself sees to it that no byte changes on the way.
    sealed: ClassVar[bool] = False
    #: There is a ``forbidden``.
    forbids: ClassVar[bool] = True
    #: There are symbolic links: ``link`` works.
    links: ClassVar[bool] = False
    #: Nobody can touch a file that is being written: taking over waits for its end, or fails for now.
    locks: ClassVar[bool] = False
    #: ``read`` sees to the version that it is asked for.
    versions: ClassVar[bool] = True
    #: There is a ``small``.
    fills: ClassVar[bool] = True
    #: And the server says, each time, that this is why it takes no more.
    says_full: ClassVar[bool] = True
    #: Names in the folder whose list must be complete: more than a page, where they are cheap.
    many: ClassVar[int] = 30
    #: The longest name of a file that it can hold, in bytes of UTF-8.
    name_max: ClassVar[int] = 255

    def __init__(self, home: Path) -> None:
        """``home``: a folder for whatever it needs, made already."""
        self.home = home
        self._tree: Tree | None = None

    # --- the server ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or start again after ``kill``, with everything that it held, at the same address. Returns
        when it answers."""

    def stop(self) -> None:
        """End it for good."""

    def kill(self) -> None:
        """SIGKILL, all of it, also processes that hold a connection."""
        raise NotImplementedError

    # --- the tree -----------------------------------------------------------------------------------------

    def reach(self) -> Reach:
        """With good credentials; its base path is the site."""
        raise NotImplementedError

    def wire(self) -> Proxy:
        """A network before the server, not entered yet."""
        reach = self.reach()
        return Proxy(("127.0.0.1", reach.port))

    def by_way_of(self, wire: Proxy) -> Reach:
        return replace(self.reach(), port=wire.port)

    def stranger(self) -> Reach:
        """With credentials that are wrong; ``SECRET`` is in them where it can be."""
        raise NotImplementedError

    def tree(self) -> Tree:
        """One that all tests share."""
        if self._tree is None:
            self._tree = open_tree(self.reach())
        return self._tree

    def forget_tree(self) -> None:
        """The next test gets a new one."""
        if self._tree is not None:
            self._tree.close()
            self._tree = None

    def holds(self, name: bytes) -> bool:
        """Can the storage hold a file and a folder of that name? (Asked about ``test_names.ODD``.)"""
        raise NotImplementedError

    # --- the server's side --------------------------------------------------------------------------------

    def put(self, path: bytes, content: bytes, *, mtime: int | None = None) -> None:
        """A file is there, whatever was there before; ``mtime`` in s, where that can be set."""
        raise NotImplementedError

    def get(self, path: bytes) -> bytes | None:
        """The content of a file; None: there is none of that name."""
        raise NotImplementedError

    def names(self, folder: bytes) -> set[bytes]:
        """What is in a folder, one level, and whatever else is kept for it: parts, unfinished uploads and
        segments by any name that tells what they are."""
        raise NotImplementedError

    def folder(self, path: bytes) -> None:
        """A folder is there, with its parents, empty if it was not there."""
        raise NotImplementedError

    def is_folder(self, path: bytes) -> bool:
        raise NotImplementedError

    def link(self, path: bytes, to: bytes) -> None:
        """A symbolic link, ``to`` is its text. Only with ``links``."""
        raise NotImplementedError

    def forbidden(self, path: bytes) -> AbstractContextManager[None]:
        """Within it our account may neither list nor write the folder ``path`` (or read anything in it)."""
        raise NotImplementedError

    def small(self, size_mb: int) -> AbstractContextManager[Reach]:
        """Within it there is another site of this kind, empty, into which no more than that fits."""
        raise NotImplementedError


class FolderSubject(Subject):
    """A server that serves a folder of this machine: ``root``; the site is a folder in it."""

    many = 1100

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.root = home / "root"
        (self.root / SITE).mkdir(parents=True)
        (self.root / "outside").mkdir()

    def real(self, path: bytes) -> bytes:
        """Where it is on this machine."""
        return os.fsencode(self.root / SITE) + path

    def holds(self, name: bytes) -> bool:
        return True

    def put(self, path: bytes, content: bytes, *, mtime: int | None = None) -> None:
        with open(self.real(path), "wb") as file:  # noqa: PTH123 - names are bytes
            file.write(content)
        if mtime is not None:
            os.utime(self.real(path), (mtime, mtime))

    def get(self, path: bytes) -> bytes | None:
        try:
            with open(self.real(path), "rb") as file:  # noqa: PTH123
                return file.read()
        except OSError:
            return None

    def names(self, folder: bytes) -> set[bytes]:
        return set(os.listdir(self.real(folder)))  # noqa: PTH208

    def folder(self, path: bytes) -> None:
        os.makedirs(self.real(path), exist_ok=True)  # noqa: PTH103

    def is_folder(self, path: bytes) -> bool:
        return os.path.isdir(self.real(path))  # noqa: PTH112

    def link(self, path: bytes, to: bytes) -> None:
        os.symlink(to, self.real(path))  # noqa: PTH211

    @contextmanager
    def forbidden(self, path: bytes) -> Iterator[None]:
        """Good where the account of the server is not root."""
        os.chmod(self.real(path), 0)  # noqa: PTH101
        try:
            yield
        finally:
            os.chmod(self.real(path), 0o755)  # noqa: PTH101


def _found() -> list[type[Subject]]:
    """Every class with an ``id`` of every ``subject_*.py`` beside this file."""
    modules = [
        import_module(f"{__package__}.{path.stem}")
        for path in sorted(Path(__file__).parent.glob("subject_*.py"))
    ]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Subject) and value.__module__ == module.__name__
        if "id" in vars(value)
    ]


def where(*, only: Callable[[type[Subject]], bool]) -> pytest.MarkDecorator:
    """Over those subjects of which that is true."""
    chosen: list[Any] = [pytest.param(found, id=found.id) for found in SUBJECTS if only(found)]
    return pytest.mark.parametrize("subject", chosen, indirect=True, scope="session")


SUBJECTS: list[type[Subject]] = _found()
