"""A folder against a manifest: needs nobody's database, only the file and the public keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from workers.vocabulary.transfers.names import name_from_wire
from workqueue.receipts.lines import signed_part

_PIECE: Final = 1024 * 1024


class BadManifest(Exception):
    """It is not what the service made: the message says what is wrong with it."""


@dataclass
class Found:
    """What a folder is compared with its manifest. Each of ``problems`` is a sentence."""

    files: int = 0
    #: Files whose content was compared by a checksum; the others by their size.
    checked: int = 0
    problems: list[str] = field(default_factory=list)


def keys_of(text: str) -> dict[str, bytes]:
    """{name: public key} of an answer of GET /api/v1/keys. Raises BadManifest."""
    try:
        return {item["id"]: base64.b64decode(item["public_key"], validate=True) for item in json.loads(text)}
    except (ValueError, TypeError, KeyError, binascii.Error):
        told = "these are not the keys that GET /api/v1/keys answers (a JSON array), but"
        raise BadManifest(f"{told} {text.strip()[:160] or 'nothing'}") from None


def verify(
    manifest: Path, folder: Path, keys: Mapping[str, bytes] | None, tell: Callable[[str], None]
) -> Found:
    """Check the manifest itself, then every file that it says was copied. ``keys`` None: the signature is
    not looked at. ``tell`` hears each problem as it is found. Raises BadManifest, OSError.
    """
    found = Found()
    with manifest.open("rb") as file:
        head = _head(file, keys)
        for fields in _entries(file, head):
            if fields.get("type") == "COPY":
                _compare(fields, str(head.get("root", "")), folder, found, tell)
    return found


def _head(file: IO[bytes], keys: Mapping[str, bytes] | None) -> dict[str, Any]:
    try:
        head = json.loads(file.readline())
        signature = base64.b64decode(head["signature"], validate=True)
        name, entries, digest = head["key"], int(head["entries"]), str(head["sha256"])
    except (ValueError, TypeError, KeyError, binascii.Error):
        raise BadManifest("its first line is no head of a manifest") from None
    if keys is not None:
        if name not in keys:
            raise BadManifest(f"it is signed with the key {name}, which is not among the given ones")
        try:
            Ed25519PublicKey.from_public_bytes(keys[name]).verify(signature, signed_part(head))
        except (InvalidSignature, ValueError):
            raise BadManifest(f"its signature is not that of the key {name}: it was changed") from None
    lines, seen = hashlib.sha256(), 0
    start = file.tell()
    for text in file:
        lines.update(text)
        seen += 1
    if (lines.hexdigest(), seen) != (digest, entries):
        raise BadManifest(
            f"its lines are not those that were signed ({seen} of {entries}): it was changed or cut"
        )
    file.seek(start)
    return dict(head)


def _entries(file: IO[bytes], head: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for text in file:
        fields = json.loads(text)
        if isinstance(fields, dict):
            yield fields


def _compare(
    fields: Mapping[str, Any], root: str, folder: Path, found: Found, tell: Callable[[str], None]
) -> None:
    shown = str(fields.get("path", ""))

    def problem(what: str) -> None:
        # Names come from elsewhere: none may move the cursor of who reads this.
        found.problems.append(f"{shown if shown.isprintable() else ascii(shown)}: {what}")
        tell(found.problems[-1])

    found.files += 1
    if fields.get("status") != "DONE":
        problem(f"was not copied (element {fields.get('element')} is {fields.get('status')})")
        return
    name = name_from_wire(shown, bool(fields.get("escaped")))
    below = name_from_wire(root, bool(fields.get("escaped"))).rstrip(b"/")
    relative = name[len(below) :].lstrip(b"/") if name.startswith(below + b"/") or not below else name
    path = os.path.join(os.fsencode(folder), relative)  # noqa: PTH118 (bytes)
    if b".." in relative.split(b"/") or relative.startswith(b"/"):
        problem("leads out of the folder")
        return
    try:
        there = os.stat(path)  # noqa: PTH116 (bytes)
    except OSError as error:
        problem(error.strerror or "cannot be read")
        return
    if name.endswith(b"/"):
        if not stat.S_ISDIR(there.st_mode):
            problem("is no folder")
        return
    if not stat.S_ISREG(there.st_mode):
        problem("is no file")
        return
    if there.st_size != fields.get("size"):
        problem(f"has {there.st_size} bytes, the manifest says {fields.get('size')}")
        return
    algorithm, _, wanted = str(fields.get("checksum") or "").partition(":")
    if algorithm:
        found.checked += 1
        if (has := checksum(path, algorithm)) != wanted.lower():
            problem(f"has {algorithm} {has}, the manifest says {wanted}")


def checksum(path: bytes, algorithm: str) -> str:
    """Of a file's content, in hexadecimal. Raises BadManifest for an algorithm that nobody knows."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (bytes)
        if algorithm == "adler32":
            value = 1
            while piece := file.read(_PIECE):
                value = zlib.adler32(piece, value)
            return f"{value:08x}"
        try:
            digest = hashlib.new(algorithm)
            digest.hexdigest()  # some have no length of their own
        except (ValueError, TypeError):
            raise BadManifest(f"it has checksums {algorithm!r}, which are not known here") from None
        while piece := file.read(_PIECE):
            digest.update(piece)
        return digest.hexdigest()
