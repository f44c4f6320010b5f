"""A file that is written to S3: its completion makes it visible, whole.

A small one is kept until its commit, which is one request with the MD5 that it must have. A larger one is an
upload of parts, each sent with its MD5 while the next one comes; the commit completes it.
"""

from __future__ import annotations

import base64
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import md5
from typing import TYPE_CHECKING, Any, Final

from workers.storage.trees.base import Entry, Keeping, Part, StorageFailed, Trouble, shown
from workers.storage.trees.s3 import marks

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.storage.trees.s3.tree import S3Tree

MIB: Final = 1 << 20
#: Least bytes of a part (S3 takes none below 5 MiB but the last), and most parts of an upload.
PART: Final = 8 * MIB
_PARTS: Final = 9_900
#: Parts on their way at once, of one file.
_UNDER_WAY: Final = 3
#: Up to here the server copies in one request (S3 does up to 5 GiB, in which nothing is heard of it).
_COPY_AT_ONCE: Final = 64 * MIB
_COPY_PART: Final = 256 * MIB
_NOTHING: Final = Keeping()


def part_size(size: int) -> int:
    """Depends on the file's size only: another attempt cuts it in the same places."""
    least = -(-max(size, 0) // _PARTS)
    return max(PART, -(-least // MIB) * MIB)


class Uploading:
    """Keeps ``base.Receiving``."""

    def __init__(self, tree: S3Tree, path: bytes, part: Part, size: int) -> None:
        tree.key(path)
        self._tree = tree
        self._path = path
        self._part = part
        self._size = size
        self._cut = part_size(size)
        self._upload = ""
        self._etags: dict[int, str] = {}
        self._kept = bytearray()
        self._sent = 0
        self._copy: dict[str, Any] | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._under_way: list[Future[None]] = []
        self._marked = False
        self.held = self._take_over()
        self._sent = self.held
        #: Number of the next part; the first is 1.
        self._next = self.held // self._cut + 1

    # --- what was there before ----------------------------------------------------------------------------

    def _take_over(self) -> int:
        """Also where nothing was left a mark of ours is: who comes later with what it had kept sees it."""
        if self._part.before is None:
            return 0
        mark = self._not_of_a_later_one()
        held = self._adopted(mark.upload) if mark and self._part.resume and self._large else 0
        self._mark(mark.upload if mark and held else "")
        if mark and not held:
            marks.abort(self._tree, self._path, mark)
        return held

    def _adopted(self, upload: str) -> int:
        """How many bytes of the upload are good: whole parts of our size, from the first one on."""
        found: dict[int, tuple[int, str]] = {}
        if not upload:
            return 0
        given: dict[str, Any] = {}
        while True:
            try:
                page = self._ask("list_parts", UploadId=upload, **given)
            except StorageFailed as failed:
                if failed.trouble in (Trouble.MISSING, Trouble.CHANGED):
                    return 0
                raise
            for item in page.get("Parts", ()):
                found[item["PartNumber"]] = (item["Size"], item["ETag"])
            if not page.get("IsTruncated"):
                break
            given = {"PartNumberMarker": page["NextPartNumberMarker"]}
        number = 1
        while number in found and found[number][0] == self._cut and number * self._cut <= self._size:
            self._etags[number] = found[number][1]
            number += 1
        held = (number - 1) * self._cut
        if held:
            self._upload = upload
        return held

    # --- the content --------------------------------------------------------------------------------------

    @property
    def _large(self) -> bool:
        return self._size < 0 or self._size > PART

    def send(self, piece: bytes) -> None:
        self._sent += len(piece)
        if 0 <= self._size < self._sent:
            raise self._wrong_size()
        view = memoryview(piece)
        while view:
            room = self._cut - len(self._kept)
            self._kept += view[:room]
            view = view[room:]
            if len(self._kept) == self._cut and self._large:
                self._send_part()

    def _send_part(self) -> None:
        if not self._upload:
            self._begin()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_UNDER_WAY, thread_name_prefix="s3")
        while len(self._under_way) >= _UNDER_WAY:
            self._under_way.pop(0).result()
        number, self._next = self._next, self._next + 1
        data, self._kept = bytes(self._kept), bytearray()
        self._under_way.append(self._threads.submit(self._put_part, number, data))

    def _put_part(self, number: int, data: bytes) -> None:
        digest = md5(data, usedforsecurity=False)
        answer = self._ask(
            "upload_part",
            UploadId=self._upload,
            PartNumber=number,
            Body=data,
            ContentMD5=base64.b64encode(digest.digest()).decode(),
        )
        self._etags[number] = answer["ETag"]

    def _begin(self) -> None:
        """A new upload, with a mark that leads to it before anything is in it."""
        if mark := self._not_of_a_later_one():
            marks.abort(self._tree, self._path, mark)
        self._upload = self._ask("create_multipart_upload")["UploadId"]
        self._mark(self._upload)

    def copied(self, source: S3Tree, path: bytes, moved: Callable[[int], None]) -> bool:
        """Let the server copy it: at the commit where it is not large, else part by part."""
        found = source.head(path)
        if found is None:
            raise source.failed(path, "is not there", Trouble.MISSING)
        size, etag = int(found["ContentLength"]), found["ETag"]
        if 0 <= self._size != size:
            raise source.failed(path, f"has {size} bytes instead of {self._size}", Trouble.CHANGED)
        given = {
            "CopySource": {"Bucket": source.bucket, "Key": source.key(path)},
            "CopySourceIfMatch": etag,
        }
        if size <= _COPY_AT_ONCE:
            self._copy = given
            moved(size)
        else:
            self._begin()
            for number, start in enumerate(range(0, size, _COPY_PART), 1):
                end = min(size, start + _COPY_PART)
                answer = self._ask(
                    "upload_part_copy",
                    UploadId=self._upload,
                    PartNumber=number,
                    CopySourceRange=f"bytes={start}-{end - 1}",
                    **given,
                )
                self._etags[number] = answer["CopyPartResult"]["ETag"]
                moved(end - start)
        self._sent = self._size = size
        return True

    def finish(self) -> None:
        """Raises StorageFailed DAMAGED when it is not as long as was announced."""
        if self._size >= 0 and self._sent != self._size:
            raise self._wrong_size()
        if self._upload and self._kept:
            self._send_part()
        while self._under_way:
            self._under_way.pop(0).result()

    def checksum(self, algorithm: str) -> str:
        """Of a small file its MD5, which the server checks at the commit. A large one was checked part by
        part; of the whole S3 has no checksum."""
        if algorithm != "md5" or self._upload or self._copy is not None:
            return ""
        return md5(self._kept, usedforsecurity=False).hexdigest()

    # --- the end ------------------------------------------------------------------------------------------

    def commit(self, *, overwrite: bool, keeping: Keeping = _NOTHING) -> Entry:
        """Raises StorageFailed CHANGED when a later attempt has taken it over."""
        self._still_ours()
        self._tree.free_for(self._path, overwrite=overwrite)
        given = {} if overwrite or self._tree.unconditional else {"IfNoneMatch": "*"}
        try:
            answer = self._made(given)
        except StorageFailed as failed:
            if failed.status == 412 and given:
                raise self._tree.failed(self._path, "is there already", Trouble.EXISTS) from None
            if not given or failed.status != 501:
                raise
            self._tree.unconditional = True
            answer = self._made({})
        self._upload = ""
        if self._marked:
            marks.remove(self._tree, self._path, self._part.tag)
            self._marked = False
        etag = str(answer.get("ETag") or "").strip('"')
        return Entry(self._path.rpartition(b"/")[2], 0o100644, self._sent, version=etag)

    def _made(self, given: dict[str, Any]) -> Any:
        if self._upload:
            parts = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(self._etags.items())]
            return self._ask(
                "complete_multipart_upload",
                UploadId=self._upload,
                MultipartUpload={"Parts": parts},
                **given,
            )
        if self._copy is not None:
            return self._ask("copy_object", **self._copy)["CopyObjectResult"]
        digest = md5(self._kept, usedforsecurity=False)
        return self._ask(
            "put_object",
            Body=bytes(self._kept),
            ContentMD5=base64.b64encode(digest.digest()).decode(),
            **given,
        )

    def _not_of_a_later_one(self) -> marks.Mark | None:
        """The mark that is there."""
        mark = marks.get(self._tree, self._path, self._part.tag)
        if mark is not None and mark.attempt > self._part.attempt:
            raise self._gone()
        return mark

    def _still_ours(self) -> None:
        mark = self._not_of_a_later_one()
        if self._marked and (mark is None or mark.attempt != self._part.attempt):
            raise self._gone()
        if mark is not None and not self._marked:  # of one before, or of this attempt, begun before
            marks.abort(self._tree, self._path, mark)
            marks.remove(self._tree, self._path, self._part.tag)

    def discard(self) -> None:
        self.close()
        marks.discard(self._tree, self._path, self._part.tag, {self._part.attempt})

    def close(self) -> None:
        self._kept = bytearray()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None
        self._under_way.clear()

    # --- parts --------------------------------------------------------------------------------------------

    def _ask(self, operation: str, **given: Any) -> Any:
        return self._tree.ask(operation, self._path, Key=self._tree.key(self._path), **given)

    def _mark(self, upload: str) -> None:
        marks.put(self._tree, self._path, self._part.tag, marks.Mark(self._part.attempt, upload))
        self._marked = True

    def _wrong_size(self) -> StorageFailed:
        return StorageFailed(
            f"{shown(self._path)}: its source gave {self._sent} bytes instead of {self._size}: it has "
            "changed while it was read",
            Trouble.DAMAGED,
        )

    def _gone(self) -> StorageFailed:
        return StorageFailed(
            f"{shown(self._path)}: a later attempt has taken over what this one has written", Trouble.CHANGED
        )
