"""The words of SFTP version 3 (draft-ietf-secsh-filexfer-02): what is told of files, read and written. Pure.

Whatever is cut off raises ValueError or struct.error.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import asyncssh
from asyncssh.packet import SSHPacket

NUMBER: Final = struct.Struct(">I")
LARGE: Final = struct.Struct(">Q")
_SIZE, _OWNER, _PERMISSIONS, _TIMES, _MORE = 0x1, 0x2, 0x4, 0x8, 0x80000000
#: For requests that set nothing.
UNCHANGED: Final = b"\0\0\0\0"


class Attributes(NamedTuple):
    """What is told of a file; None is not. Times in s."""

    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    permissions: int | None = None
    atime: int | None = None
    mtime: int | None = None


class Space(NamedTuple):
    """Of a file system: ``bavail`` blocks of ``frsize`` bytes are free for us."""

    frsize: int
    bavail: int


def setting(
    *, size: int | None = None, permissions: int | None = None, times: tuple[int, int] | None = None
) -> bytes:
    """What is to be set, for a request: bytes, mode bits, (atime, mtime) in s."""
    flags, parts = 0, b""
    if size is not None:
        flags, parts = flags | _SIZE, parts + LARGE.pack(size)
    if permissions is not None:
        flags, parts = flags | _PERMISSIONS, parts + NUMBER.pack(permissions)
    if times is not None:
        flags, parts = flags | _TIMES, parts + struct.pack(">II", *times)
    return NUMBER.pack(flags) + parts


def text_of(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


def pairs(said: bytes, at: int) -> dict[bytes, bytes]:
    """Strings to the end, two and two."""
    found = {}
    while at < len(said):
        name, at = _next(said, at)
        found[name], at = _next(said, at)
    return found


def _next(said: bytes, at: int) -> tuple[bytes, int]:
    """A string, and where it ends."""
    begin = at + 4
    end = begin + NUMBER.unpack_from(said, at)[0]
    if end > len(said):
        raise ValueError("cut off")
    return said[begin:end], end


def text(said: bytes) -> bytes:
    return _next(said, 0)[0]


def failure(said: bytes) -> asyncssh.SFTPError | None:
    """Of a status; None: it was done."""
    if NUMBER.unpack_from(said, 5)[0] == 0:
        return None
    return asyncssh.SFTPError.construct(SSHPacket(said[5:]), "replace")


def attributes(said: bytes) -> Attributes:
    return _attributes_at(said, 0)[0]


def _attributes_at(said: bytes, at: int) -> tuple[Attributes, int]:
    """Attributes, and where they end."""
    (flags,), at = NUMBER.unpack_from(said, at), at + 4
    size = uid = gid = permissions = atime = mtime = None
    if flags & _SIZE:
        (size,), at = LARGE.unpack_from(said, at), at + 8
    if flags & _OWNER:
        (uid, gid), at = struct.unpack_from(">II", said, at), at + 8
    if flags & _PERMISSIONS:
        (permissions,), at = NUMBER.unpack_from(said, at), at + 4
    if flags & _TIMES:
        (atime, mtime), at = struct.unpack_from(">II", said, at), at + 8
    if flags & _MORE:
        (count,), at = NUMBER.unpack_from(said, at), at + 4
        for _ in range(2 * count):
            _, at = _next(said, at)
    return Attributes(size, uid, gid, permissions, atime, mtime), at


def names(said: bytes) -> list[tuple[bytes, Attributes]]:
    found, at = [], 4
    for _ in range(NUMBER.unpack_from(said, 0)[0]):
        name, at = _next(said, at)
        _, at = _next(said, at)
        what, at = _attributes_at(said, at)
        found.append((name, what))
    return found


def space(said: bytes) -> Space:
    _, frsize, _, _, bavail = struct.unpack_from(">5Q", said)
    return Space(frsize, bavail)
