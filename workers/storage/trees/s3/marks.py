"""Marks are small objects beside the target, under the name of a part of that attempt. One holds the id of
an upload; it is there before the first part is. An attempt that follows another leaves its own mark, removes
the other's and ends the other's upload (or goes on with it). A commit looks at the marks first: who finds
that of a later attempt, or not its own, makes nothing visible. Between that look and the commit is a moment
that S3 gives no means against.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from workers.storage.trees.base import StorageFailed, Trouble
from workers.storage.trees.parts import is_part, part_path

if TYPE_CHECKING:
    from workers.storage.trees.s3.tree import S3Tree


def put(tree: S3Tree, path: bytes, tag: str, attempt: int, identity: str) -> None:
    """Leave the attempt's mark, with the id of its upload ("": none)."""
    body = json.dumps({"upload": identity}).encode()
    tree.ask("put_object", path, Key=_key(tree, path, tag, attempt), Body=body)


def attempts(tree: S3Tree, path: bytes, tag: str) -> set[int]:
    """Those whose marks are there."""
    start = _key(tree, path, tag, 1).removesuffix("1.part")
    page = tree.ask("list_objects_v2", path, Prefix=start, MaxKeys=1000)
    names = [item["Key"].rpartition("/")[2].encode() for item in page.get("Contents", ())]
    return {int(name.split(b".")[-2]) for name in names if is_part(name)}


def discard(tree: S3Tree, path: bytes, tag: str, attempt: int) -> None:
    """Its upload and its mark, where they are there."""
    found = upload(tree, path, tag, attempt)
    if found:
        abort(tree, path, found)
    if found is not None:
        remove(tree, path, tag, attempt)


def _key(tree: S3Tree, path: bytes, tag: str, attempt: int) -> str:
    return tree.key(part_path(path, tag, attempt))


def upload(tree: S3Tree, path: bytes, tag: str, attempt: int) -> str | None:
    """The id of the attempt's upload, "" where it has none; None: there is no mark."""
    try:
        answer = tree.ask("get_object", path, Key=_key(tree, path, tag, attempt))
    except StorageFailed as failed:
        if failed.trouble is not Trouble.MISSING:
            raise
        return None
    with answer["Body"] as body:
        try:
            return str(json.loads(body.read(64 * 1024))["upload"])
        except (ValueError, KeyError, TypeError):
            return ""


def remove(tree: S3Tree, path: bytes, tag: str, attempt: int) -> None:
    tree.ask("delete_object", path, Key=_key(tree, path, tag, attempt))


def abort(tree: S3Tree, path: bytes, identity: str) -> None:
    """End an upload; quiet where it has ended."""
    try:
        tree.ask("abort_multipart_upload", path, Key=tree.key(path), UploadId=identity)
    except StorageFailed as failed:
        if failed.trouble not in (Trouble.MISSING, Trouble.CHANGED):
            raise
