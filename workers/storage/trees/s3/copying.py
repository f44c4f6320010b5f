"""A rename where there is none: each file is copied by the server, and removed when its copy is there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from workers.storage.trees.base import Trouble, shown

if TYPE_CHECKING:
    from workers.storage.trees.s3.tree import S3Tree

#: S3 copies up to 5 GiB in one request; above that in parts of that many bytes.
_AT_ONCE: Final = 5 << 30
_PART: Final = 1 << 30


def rename(tree: S3Tree, source: bytes, target: bytes, overwrite: bool) -> None:
    """A file or a folder. A folder's files are copied and removed page by page: ended in the middle, each of
    them is in one of the two places, or in both."""
    if target.startswith(source + b"/"):
        raise tree.failed(target, f"is within {shown(source)}", Trouble.DENIED)
    found = tree.head(source)
    if source == target and (found is not None or tree.begins(source)):
        if not overwrite:
            raise tree.failed(target, "is there already", Trouble.EXISTS)
        return
    if found is not None:
        tree.free_for(target, overwrite=overwrite)
        _move(tree, source, tree.key(source), tree.key(target), int(found["ContentLength"]), found["ETag"])
        return
    if not tree.begins(source):
        raise tree.failed(source, "is not there", Trouble.MISSING)
    tree.free_for(target, overwrite=False)
    old, new = tree.folder_key(source), tree.folder_key(target)
    with ThreadPoolExecutor(tree.streams, thread_name_prefix="s3") as threads:
        for page in tree.account.pages(shown(source), Bucket=tree.bucket, Prefix=old):
            moves = [
                threads.submit(_move, tree, source, key, new + key[len(old) :], item["Size"], item["ETag"])
                for item in page.get("Contents", ())
                if (key := item["Key"])
            ]
            for move in moves:
                move.result()


def _move(tree: S3Tree, path: bytes, old: str, new: str, size: int, etag: str) -> None:
    given = {"CopySource": {"Bucket": tree.bucket, "Key": old}, "CopySourceIfMatch": etag}
    if size <= _AT_ONCE:
        tree.ask("copy_object", path, Key=new, **given)
    else:
        _copy_large(tree, path, new, size, given)
    tree.ask("delete_object", path, Key=old)


def _copy_large(tree: S3Tree, path: bytes, new: str, size: int, given: dict[str, Any]) -> None:
    upload = tree.ask("create_multipart_upload", path, Key=new)["UploadId"]
    try:
        parts = []
        for number, start in enumerate(range(0, size, _PART), 1):
            answer = tree.ask(
                "upload_part_copy",
                path,
                Key=new,
                UploadId=upload,
                PartNumber=number,
                CopySourceRange=f"bytes={start}-{min(size, start + _PART) - 1}",
                **given,
            )
            parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
        tree.ask(
            "complete_multipart_upload", path, Key=new, UploadId=upload, MultipartUpload={"Parts": parts}
        )
    except BaseException:
        tree.ask("abort_multipart_upload", path, Key=new, UploadId=upload)
        raise
