"""Fetches a run's ``uris`` into its working directory before it starts.

Each file gets the last segment of its address as its name, mode 0644 (not executable), nothing is unpacked:
`sh ./install.sh` and `tar xf data.tgz` belong into the command. Nothing outside of the folder is ever
written: names are checked, and files are made beneath the folder's descriptor and moved into place when they
are complete. Must not import models, services or runtimes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from django.conf import settings

from workers.addresses import AddressFailed, Deadline, Response, Target, open_url, parse, system_resolver
from workers.addresses.http import MAX_REDIRECTS, Resolver
from workers.vocabulary.errors import AddressRefused, EngineError, InvalidInput
from workers.vocabulary.specs import HIDDEN

#: Bytes in memory at once.
PIECE: Final = 256 * 1024
#: How files begin their names until they are complete.
_PARTIAL: Final = ".gantry-fetch-"
_MIB: Final = 1024 * 1024


class FetchFailed(EngineError):
    """A uri could not be fetched; the message names it (without credentials) and what to do."""

    code = "fetch_failed"


class _Cancelled(Exception):
    """Nobody wants the files any more."""


@dataclass(frozen=True)
class Limits:
    """``file_bytes`` of one file; ``total_s`` for all of them; ``stall_s`` without any byte."""

    file_bytes: int
    total_s: float = 3600.0
    stall_s: float = 60.0

    @classmethod
    def from_settings(cls) -> Limits:
        """What the operator has set (GANTRY_URI_LIMIT_MB)."""
        return cls(file_bytes=settings.GANTRY_URI_LIMIT_MB * _MIB)


def fetch_uris(
    uris: Sequence[str],
    into: Path | int,
    cancelled: Callable[[], bool] = lambda: False,
    limits: Limits | None = None,
    *,
    resolver: Resolver = system_resolver,
) -> None:
    """Fetch every uri into the folder ``into`` (a path or a directory's descriptor).

    Returns early, leaving no half file, once ``cancelled()`` is true: the caller asks the same question. A
    file of the same name that an interrupted fetch left is replaced; two uris with one name are refused
    before anything is fetched. Raises AddressRefused, FetchFailed; OSError when the folder cannot be written.
    """
    limits = limits or Limits.from_settings()
    wanted = _named(uris)

    def tick() -> None:
        if cancelled():
            raise _Cancelled

    deadline = Deadline(limits.total_s, limits.stall_s, tick)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.dup(into) if isinstance(into, int) else os.open(into, flags)
    try:
        _remove_partial(folder)
        for uri, (target, name) in zip(uris, wanted, strict=True):
            try:
                _fetch(uri, target, name, folder, limits, deadline, resolver)
            except AddressFailed as error:
                raise FetchFailed(f"uri {error.message}") from error
            except AddressRefused as error:
                raise AddressRefused(f"uri {target.shown}: {error.message}") from error
    except _Cancelled:
        return
    finally:
        os.close(folder)


def with_credentials(uris: Sequence[str], places: Sequence[int], texts: Sequence[str]) -> list[str]:
    """A specification's ``uris`` as they were sent: ``texts`` were taken out of those at ``places``."""
    found = list(uris)
    for place, text in zip(places, texts, strict=True):
        found[place] = found[place].replace(f"://{HIDDEN}@", f"://{text}@", 1)
    return found


def _remove_partial(folder: int) -> None:
    """What a fetch that was killed has left."""
    for name in os.listdir(folder):
        if name.startswith(_PARTIAL):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)


def _named(uris: Sequence[str]) -> list[tuple[Target, str]]:
    """Each uri taken apart, with the name of its file; FetchFailed before anything is fetched."""
    wanted: list[tuple[Target, str]] = []
    for number, uri in enumerate(uris, 1):
        try:
            target = parse(uri, field=f"uri {number}", credentials=True)
        except InvalidInput as error:
            raise FetchFailed(error.message) from error
        name = file_name(target)
        if name in [other for _, other in wanted]:
            raise FetchFailed(f"two uris have the file name {name!r}: each needs a name of its own")
        wanted.append((target, name))
    return wanted


def file_name(target: Target) -> str:
    """The last segment of the path, decoded; FetchFailed when it cannot name a file in the folder."""
    raw = unquote_to_bytes(target.path.partition("?")[0].rpartition("/")[2])
    name = os.fsdecode(raw)
    if not name or name in (".", ".."):
        raise FetchFailed(f"uri {target.shown} names no file: its path has to end with a file name")
    if "/" in name or any(ord(char) < 0x20 or ord(char) == 0x7F for char in name):
        raise FetchFailed(f"uri {target.shown}: its file name has a slash or a control character in it")
    if len(raw) > 255:
        raise FetchFailed(f"uri {target.shown}: its file name is longer than 255 bytes")
    return name


def _fetch(
    uri: str, target: Target, name: str, folder: int, limits: Limits, deadline: Deadline, resolver: Resolver
) -> None:
    partial = f"{_PARTIAL}{secrets.token_hex(8)}"
    with open_url(
        uri, purpose="uri", deadline=deadline, redirects=MAX_REDIRECTS, credentials=True, resolver=resolver
    ) as answer:
        if answer.status != 200:
            raise FetchFailed(
                f"uri {target.shown}: the server answered {answer.status} {answer.reason}: "
                "check that the address is right and can be read with what it carries"
            )
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(partial, flags, 0o644, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o644)
                _copy(answer, file.write, target, limits)
            _place(partial, name, folder, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial, dir_fd=folder)
            raise


def _copy(answer: Response, write: Callable[[bytes], int], target: Target, limits: Limits) -> None:
    too_large = FetchFailed(
        f"uri {target.shown} is larger than {limits.file_bytes / _MIB:g} MiB, the limit for one file "
        "(an operator can raise GANTRY_URI_LIMIT_MB)"
    )
    announced = answer.length
    if announced is not None and announced > limits.file_bytes:
        raise too_large
    written = 0
    while data := answer.read(PIECE):
        written += len(data)
        if written > limits.file_bytes:
            raise too_large
        write(data)
    if announced is not None and written < announced:
        raise FetchFailed(f"uri {target.shown}: the connection ended after {written} of {announced} bytes")


def _place(partial: str, name: str, folder: int, target: Target) -> None:
    try:
        os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    except (IsADirectoryError, FileExistsError, NotADirectoryError) as error:
        raise FetchFailed(f"uri {target.shown}: {name!r} exists already and is a folder") from error
