"""A mark is a small object beside the target, under the name of a part of attempt 0: whose turn it is.

It holds the number of the attempt and the id of its upload, and is there before the upload's first part. An
attempt that follows another puts its own in its place, and ends the other's upload or goes on with it. A
commit looks at it first: who finds that of a later attempt, or its own gone, makes nothing visible. Between
that look and the commit is a moment that S3 gives no means against.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.storage.trees.base import StorageFailed, Trouble
from workers.storage.trees.parts import part_path

if TYPE_CHECKING:
    from workers.storage.trees.s3.tree import S3Tree


@dataclass(frozen=True)
class Mark:
    """``upload`` "": the attempt has none."""

    attempt: int
    upload: str


def put(tree: S3Tree, path: bytes, tag: str, mark: Mark) -> None:
    body = json.dumps({"attempt": mark.attempt, "upload": mark.upload}).encode()
    tree.ask("put_object", path, Key=_key(tree, path, tag), Body=body)


def get(tree: S3Tree, path: bytes, tag: str) -> Mark | None:
    """None: there is none."""
    try:
        answer = tree.ask("get_object", path, Key=_key(tree, path, tag))
    except StorageFailed as failed:
        if failed.trouble is not Trouble.MISSING:
            raise
        return None
    with answer["Body"] as body:
        try:
            found = json.loads(body.read(64 * 1024))
            return Mark(int(found["attempt"]), str(found["upload"]))
        except (ValueError, KeyError, TypeError):
            return Mark(0, "")


def remove(tree: S3Tree, path: bytes, tag: str) -> None:
    tree.ask("delete_object", path, Key=_key(tree, path, tag))


def abort(tree: S3Tree, path: bytes, mark: Mark) -> None:
    """End its upload; quiet where it has none, or where that has ended."""
    if not mark.upload:
        return
    try:
        tree.ask("abort_multipart_upload", path, Key=tree.key(path), UploadId=mark.upload)
    except StorageFailed as failed:
        if failed.trouble not in (Trouble.MISSING, Trouble.CHANGED):
            raise


def discard(tree: S3Tree, path: bytes, tag: str, attempts: Collection[int]) -> None:
    """The mark and the upload, where they are of one of these."""
    mark = get(tree, path, tag)
    if mark is not None and mark.attempt in attempts:
        abort(tree, path, mark)
        remove(tree, path, tag)


def _key(tree: S3Tree, path: bytes, tag: str) -> str:
    return tree.key(part_path(path, tag, 0))
