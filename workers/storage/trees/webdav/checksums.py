"""Checksums as servers tell them, as hexadecimal. Pure.

Sources: RFC 3230 (Digest), ownCloud's OC-Checksum and property "checksums".
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

#: Ours -> as Want-Digest has it.
DIGESTS: Final = {"adler32": "adler32", "md5": "md5", "sha256": "sha-256"}
_LENGTHS: Final = {"adler32": 8, "md5": 32, "sha256": 64}


def of_digest(header: str, algorithm: str) -> str:
    """Of "adler32=03da0195,md5=<base64>"."""
    for item in header.split(","):
        name, _, value = item.strip().partition("=")
        if name.lower() == DIGESTS[algorithm]:
            return _hex(value.strip(), algorithm)
    return ""


def of_words(text: str, algorithm: str) -> str:
    """Of ownCloud's "SHA1:... MD5:... ADLER32:..."."""
    found = re.search(rf"(?i)\b{algorithm}:([0-9a-f]+)", text)
    return _hex(found[1], algorithm) if found else ""


def _hex(value: str, algorithm: str) -> str:
    """Hexadecimal, from that or from base64; "" where it is neither or of another length."""
    due = _LENGTHS[algorithm]
    if re.fullmatch(r"[0-9a-fA-F]{1,64}", value) and (len(value) == due or algorithm == "adler32"):
        return value.lower().rjust(due, "0")
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return raw.hex() if len(raw) * 2 == due else ""
