"""A LOCAL site with something beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from workers.storage.trees.local.tree import LocalTree
from workers.storage.trees.opening import open_tree
from workers.vocabulary.transfers.reach import Protocol, Reach


@dataclass
class Site:
    """``path`` is its base path, ``outside`` a folder beside it."""

    path: Path
    outside: Path
    tree: LocalTree


@pytest.fixture(params=[True, False], ids=["kernel", "walked"])
def site(request: Any, tmp_path: Path, settings: Any) -> Iterator[Site]:
    """Once with the kernel's help to stay in it, once without."""
    path, outside = tmp_path / "site", tmp_path / "outside"
    path.mkdir()
    outside.mkdir()
    settings.GANTRY_LOCAL_SITES = [str(tmp_path)]
    tree = open_tree(Reach(protocol=Protocol.LOCAL, path=str(path)))
    assert isinstance(tree, LocalTree)
    tree.root.kernel = request.param
    yield Site(path, outside, tree)
    tree.close()
