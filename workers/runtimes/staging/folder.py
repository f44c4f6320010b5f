"""Files beneath a run's working folder, reached through descriptors: no link leads out of it.

Before the start only we write there; afterwards the run may have put anything in the place of a file.
Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: How files begin their names until they are complete.
PARTIAL: Final = ".gantry-fetch-"
#: Of folders that we make: the run's user, whoever that is, writes there. Nobody else gets past the top one.
_MODE: Final = 0o777
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NoSuchFile(Exception):
    """There is no ordinary file under this path; the text says what there is instead."""


class InTheWay(Exception):
    """Something else has the name already, and is not replaced."""


@contextlib.contextmanager
def parent_of(root: Path, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """(descriptor of the folder that holds ``path``, its last part). Raises OSError."""
    *above, name = path.split("/")
    if not name or any(part in ("", ".", "..") for part in (*above, name)):
        raise ValueError(f"{path!r} is no relative path of plain parts")
    here = os.open(root, _FOLDER)
    try:
        for part in above:
            made = make and _made(here, part)
            below = os.open(part, _FOLDER, dir_fd=here)
            if made:
                os.fchmod(below, _MODE)
            os.close(here)
            here = below
        yield here, name
    finally:
        os.close(here)


def _made(folder: int, name: str) -> bool:
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        return False
    return True


def make_room(root: Path, path: str) -> None:
    """Make the folders in which the run will write ``path``. Raises OSError."""
    with parent_of(root, path, make=True):
        pass


@contextlib.contextmanager
def to_be_placed(root: Path, path: str) -> Iterator[int]:
    """A descriptor to write a file's content to; it gets its name (mode 0644) when the block ends well.

    What an interrupted one has left is begun anew. Missing folders are made. Raises InTheWay, OSError.
    """
    with parent_of(root, path, make=True) as (folder, name):
        partial = PARTIAL + hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(partial, flags, 0o644, dir_fd=folder)
        try:
            os.fchmod(file, 0o644)
            yield file
            try:
                os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
            except (IsADirectoryError, FileExistsError) as error:
                raise InTheWay(f"{name!r} exists already and is a folder") from error
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial, dir_fd=folder)
            raise
        finally:
            os.close(file)


def size_of(root: Path, path: str) -> int | None:
    """The size in bytes of the ordinary file there; None when there is none."""
    try:
        with parent_of(root, path) as (folder, name):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def open_made(root: Path, path: str) -> int:
    """A file that the run has made, open for reading; the caller closes it. Raises NoSuchFile.

    A link is not followed, and a file with a second name is not taken: it might be anybody's.
    """
    try:
        with parent_of(root, path) as (folder, name):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise NoSuchFile("there is no such file") from None
    except OSError as error:
        raise NoSuchFile(f"it is no ordinary file ({error.strerror})") from None
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        os.close(file)
        raise NoSuchFile("it is no ordinary file")
    if found.st_nlink > 1:
        os.close(file)
        raise NoSuchFile("it has a second name (a hard link): copy it instead")
    return file
