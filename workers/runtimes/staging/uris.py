"""A run's ``uris`` as inputs: each gets the last segment of its address as its name.

Mode 0644 (not executable), nothing is unpacked: `sh ./install.sh` and `tar xf data.tgz` belong into the
command.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from workers.addresses import Target, parse
from workers.storage.base import StorageFailed, Trouble
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.specs import HIDDEN
from workers.vocabulary.staging import Input


def inputs_of(uris: Sequence[str]) -> list[Input]:
    """Each uri with the name of its file; StorageFailed before anything is fetched."""
    found: dict[str, Input] = {}
    for number, uri in enumerate(uris, 1):
        try:
            target = parse(uri, field=f"uri {number}", credentials=True)
        except InvalidInput as error:
            raise StorageFailed(error.message, Trouble.OTHER) from error
        name = file_name(target)
        if name in found:
            raise _refused(f"two uris have the file name {name!r}: each needs a name of its own")
        found[name] = Input(url=uri, path=name)
    return list(found.values())


def with_credentials(uris: Sequence[str], places: Sequence[int], texts: Sequence[str]) -> list[str]:
    """A specification's ``uris`` as they were sent: ``texts`` were taken out of those at ``places``."""
    found = list(uris)
    for place, text in zip(places, texts, strict=True):
        found[place] = found[place].replace(f"://{HIDDEN}@", f"://{text}@", 1)
    return found


def file_name(target: Target) -> str:
    """The last segment of the path, decoded; StorageFailed when it cannot name a file in the folder."""
    raw = unquote_to_bytes(target.path.partition("?")[0].rpartition("/")[2])
    name = os.fsdecode(raw)
    if not name or name in (".", ".."):
        raise _refused(f"uri {target.shown} names no file: its path has to end with a file name")
    if "/" in name or any(ord(char) < 0x20 or ord(char) == 0x7F for char in name):
        raise _refused(f"uri {target.shown}: its file name has a slash or a control character in it")
    if len(raw) > 255:
        raise _refused(f"uri {target.shown}: its file name is longer than 255 bytes")
    return name


def _refused(message: str) -> StorageFailed:
    return StorageFailed(message, Trouble.OTHER)
