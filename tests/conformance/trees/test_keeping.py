"""Times, modes, checksums and space, where a storage says that it can."""

from __future__ import annotations

import hashlib
import zlib

from tests.conformance.trees.handling import MIB, begin, content, fails, fill, write
from tests.conformance.trees.subjects import Subject
from workers.storage.trees.base import ALGORITHMS, Keeping, Tree, Trouble

_WHEN = 1_500_000_000


def test_times_and_modes_are_kept(tree: Tree, subject: Subject, folder: bytes) -> None:
    """Asked of everybody: who cannot keep them still makes the file."""
    keeping = Keeping(mtime_ns=_WHEN * 10**9 + 123_000_000, mode=0o100640)
    made = write(tree, folder + b"/file", b"content", keeping=keeping)
    found = tree.stat(folder + b"/file")
    assert (found.version, found.size) == (made.version, made.size)
    assert subject.get(folder + b"/file") == b"content"
    if tree.traits.times:
        assert found.mtime_ns // 10**9 == _WHEN
    if tree.traits.modes:
        assert found.mode == 0o100640
        tree.mkdir(folder + b"/made", 0o750)
        assert tree.stat(folder + b"/made").mode == 0o40750


def test_a_file_is_not_setuid_because_it_was_so_elsewhere(tree: Tree, folder: bytes) -> None:
    write(tree, folder + b"/file", b"content", keeping=Keeping(mode=0o104755))
    if tree.traits.modes:
        assert tree.stat(folder + b"/file").mode == 0o100755


def test_checksums_are_those_of_the_content(tree: Tree, subject: Subject, folder: bytes) -> None:
    for size in (0, MIB + 1):
        data = content(size)
        right = {
            "adler32": f"{zlib.adler32(data):08x}",
            "md5": hashlib.md5(data).hexdigest(),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        subject.put(folder + b"/put", data)
        receiving = begin(tree, folder + b"/file", size)
        fill(receiving, data)
        for algorithm in ALGORITHMS:
            assert receiving.checksum(algorithm) in ("", right[algorithm])
        receiving.commit(overwrite=True)
        receiving.close()
        for algorithm in ALGORITHMS:
            told = {tree.checksum(folder + name, algorithm) for name in (b"/put", b"/file")}
            assert told - {right[algorithm]} <= ({""} if algorithm not in tree.traits.checksums else set())
    assert list(tree.traits.checksums) == [name for name in ALGORITHMS if name in tree.traits.checksums]
    if tree.traits.checksums:
        with fails(Trouble.MISSING, words="nothing"):
            tree.checksum(folder + b"/nothing", tree.traits.checksums[0])


def test_free_space(tree: Tree, folder: bytes) -> None:
    """Told or not, also where the folder is still to be made; between 1 MiB and 1 EiB."""
    for path in (b"/", folder, folder + b"/not/yet"):
        told = tree.free_space(path)
        assert told is None or MIB < told < 1 << 60
