"""A LOCAL site: who may have one, and what only a folder of this machine can show."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.unit.storage.trees.conftest import Site
from workers.storage.trees.base import Part, StorageFailed, Trouble
from workers.storage.trees.local import missing, writing
from workers.storage.trees.local.tree import LocalTree
from workers.storage.trees.opening import open_tree
from workers.vocabulary.transfers.reach import Protocol, Reach


def _open(path: str | Path) -> None:
    open_tree(Reach(protocol=Protocol.LOCAL, path=str(path))).close()


def _refusal(path: str | Path) -> StorageFailed:
    with pytest.raises(StorageFailed) as caught:
        _open(path)
    return caught.value


def test_a_site_begins_where_the_node_allows_it(tmp_path: Path, settings: Any) -> None:
    for name in ("allowed/inner", "allowed-too", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "allowed" / "out").symlink_to(tmp_path / "other")
    (tmp_path / "allowed" / "file").write_bytes(b"")
    (tmp_path / "by-link").symlink_to(tmp_path / "other")
    settings.GANTRY_LOCAL_SITES = []
    assert "GANTRY_LOCAL_SITES" in _refusal(tmp_path / "allowed").message
    settings.GANTRY_LOCAL_SITES = ["relative", f"{tmp_path}/allowed/", f"{tmp_path}/by-link"]
    for path in ("allowed", "allowed/", "allowed/inner", "by-link"):
        _open(f"{tmp_path}/{path}")
    for path in ("allowed-too", "other", "", "allowed/../other", "allowed/out"):
        assert _refusal(f"{tmp_path}/{path}").trouble is Trouble.DENIED, path
    assert _refusal("allowed").trouble is Trouble.DENIED
    assert _refusal(tmp_path / "allowed" / "nothing").trouble is Trouble.MISSING
    assert _refusal(tmp_path / "allowed" / "file").trouble is Trouble.NOT_FOLDER
    settings.GANTRY_LOCAL_SITES = [f"{tmp_path}/nothing"]
    assert _refusal(tmp_path / "nothing").trouble is Trouble.MISSING
    assert missing() == ""


def test_a_file_that_changes_while_it_is_read(site: Site) -> None:
    """Never a mixture: the end of it is a refusal. Without a version what there was at its begin is read."""
    path = site.path / "file"
    for change in ("shorter", "another"):
        path.write_bytes(b"1" * (3 << 20))
        os.utime(path, (10**9, 10**9))  # older kernels' clock of files ticks every 4 ms only
        with site.tree.read(b"/file", version=site.tree.stat(b"/file").version) as pieces:
            assert next(pieces)
            with path.open("r+b") as file:
                file.truncate(2 << 20) if change == "shorter" else file.write(b"2" * 100)
            with pytest.raises(StorageFailed) as caught:
                list(pieces)
        assert caught.value.trouble is Trouble.CHANGED
    with site.tree.read(b"/file") as pieces:
        first = next(pieces)
        with path.open("ab") as file:
            file.write(b"more")
        assert len(first) + sum(map(len, pieces)) == 3 << 20


def test_a_full_disk(site: Site) -> None:
    """As the kernel says it of a file that is too large (a limit of this process takes the disk's place)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    receiving = site.tree.receive(b"/file", Part("t"), 2 << 20)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StorageFailed, match="/file") as caught:
            receiving.send(b"x" * (2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.trouble is Trouble.FULL
    receiving.discard()
    receiving.close()
    assert list(site.path.iterdir()) == []


def test_a_pipe_is_not_waited_for(site: Site) -> None:
    os.mkfifo(site.path / "pipe")
    with pytest.raises(StorageFailed, match="no file") as caught, site.tree.read(b"/pipe"):
        pass
    assert caught.value.trouble is Trouble.OTHER
    assert not site.tree.stat(b"/pipe").is_file


def _everything(tree: LocalTree, path: bytes) -> tuple[Callable[[], object], ...]:
    """Each operation, read and listed to the end, a little, and not at all."""
    return (
        lambda: tree.stat(path),
        lambda: list(tree.scan(path)),
        lambda: next(tree.scan(path)),
        lambda: tree.scan(path),
        lambda: list(tree.read(path).__enter__()),
        lambda: tree.read(path).__enter__(),
        lambda: tree.checksum(path, "md5"),
        lambda: tree.free_space(path),
        lambda: tree.mkdir(path),
        lambda: tree.remove_folder(path + b"-2"),
        lambda: tree.rename(path, b"/inner"),
        lambda: tree.discard(path, Part("t")),
        lambda: tree.receive(path, Part("t"), 3).close(),
    )


def test_no_descriptor_stays_open(site: Site) -> None:
    (site.path / "inner").mkdir()
    (site.path / "inner" / "file").write_bytes(b"content")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for path in (b"/inner/file", b"/inner", b"/none", b"/none/file", b"/inner/file/below", b"/" + b"n" * 300):
        for what in _everything(site.tree, path):
            with suppress(StorageFailed, StopIteration):
                what()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_nothing_is_replaced_where_the_file_system_has_no_such_rename(
    site: Site, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """By a second name, or, where there are none, after a look."""
    monkeypatch.setattr(writing, "_renameat2", None)
    if not links:

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(1, "as on vfat")

        monkeypatch.setattr(os, "link", refuse)
    (site.path / "file").write_bytes(b"one")
    (site.path / "other").write_bytes(b"two")
    (site.path / "folder").mkdir()
    for source, target in ((b"/file", b"/other"), (b"/file", b"/folder"), (b"/folder", b"/other")):
        with pytest.raises(StorageFailed) as caught:
            site.tree.rename(source, target)
        assert caught.value.trouble is Trouble.EXISTS
    site.tree.rename(b"/file", b"/new")
    site.tree.rename(b"/folder", b"/folder-2")
    assert {path.name for path in site.path.iterdir()} == {"new", "other", "folder-2"}
    assert (site.path / "new").read_bytes() == b"one"
    assert (site.path / "new").stat().st_nlink == 1
