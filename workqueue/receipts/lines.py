"""The form of a manifest: JSON Lines, first a signed head, then a line for each element in order. Pure.

    {"job": 12, "tenant": "lab", "type": "COPY", "root": "/out", "finished_at": "...Z", "entries": 2,
     "sha256": "<of the following lines, each with its newline>", "key": "9c56cc51b374c3ba",
     "algorithm": "Ed25519", "signature": "<base64>"}
    {"path": "/out/a.txt", "size": 3, "checksum": "adler32:...", "mtime": 1700000000, "type": "COPY",
     "status": "DONE", "element": 1, "attempt": 1}

The signature is over the head without ``signature``, in the form of ``signed_part``. ``checksum`` is what was
verified when the element ended, null where nothing was; ``escaped`` stands beside a path that is no UTF-8
(``workers.vocabulary.transfers.names``). ``root`` is what all paths of files begin with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def line(fields: Mapping[str, Any]) -> bytes:
    """One line, its newline included."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def signed_part(head: Mapping[str, Any]) -> bytes:
    """What is signed: the head without its signature, keys sorted, ASCII, no blanks."""
    kept = {name: value for name, value in head.items() if name != "signature"}
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()
