"""Files beneath a working folder: what a run puts in the place of one leads nowhere else."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from workers.runtimes.staging.folder import NoSuchFile, open_made, size_of, to_be_placed


def test_a_file_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        with to_be_placed(tmp_path, "in/0/a b.fa") as file:
            os.write(file, b"half")
            assert not (tmp_path / "in/0/a b.fa").exists()
    finally:
        os.umask(old)

    assert (tmp_path / "in/0/a b.fa").read_bytes() == b"half"
    assert (tmp_path / "in/0/a b.fa").stat().st_mode & 0o777 == 0o644
    assert size_of(tmp_path, "in/0/a b.fa") == 4


def test_what_failed_leaves_nothing_and_what_was_there_stays(tmp_path: Path) -> None:
    with to_be_placed(tmp_path, "x") as file:
        os.write(file, b"first")
    with contextlib.suppress(RuntimeError), to_be_placed(tmp_path, "x") as file:
        os.write(file, b"half")
        raise RuntimeError

    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"first"


def test_a_name_of_255_bytes_will_do(tmp_path: Path) -> None:
    with to_be_placed(tmp_path, "é" * 127) as file:
        os.write(file, b"x")

    assert size_of(tmp_path, "é" * 127) == 1


@pytest.mark.parametrize("path", ["", "/etc/passwd", "a/../b", "..", "a//b", "a/", "./a"])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="plain parts"), to_be_placed(tmp_path, path):
        pass


def test_what_the_run_put_in_a_files_place_is_not_read(tmp_path: Path) -> None:
    """Catches a worker, root, that hands out what the run itself may not read."""
    secret = tmp_path / "secret"
    secret.write_text("root's")
    work = tmp_path / "work"
    (work / "out").mkdir(parents=True)
    (work / "link").symlink_to(secret)
    (work / "folder-link").symlink_to(tmp_path)
    os.link(secret, work / "second-name")
    os.mkfifo(work / "pipe")

    for path, why in (
        ("link", "no ordinary file"),
        ("folder-link/secret", "no ordinary file"),
        ("second-name", "hard link"),
        ("pipe", "no ordinary file"),
        ("out", "no ordinary file"),
        ("missing", "no such file"),
        ("missing/too", "no such file"),
    ):
        with pytest.raises(NoSuchFile, match=why):
            open_made(work, path)


def test_an_ordinary_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"result")
    file = open_made(tmp_path, "a/b")
    try:
        assert os.read(file, 100) == b"result"
    finally:
        os.close(file)
