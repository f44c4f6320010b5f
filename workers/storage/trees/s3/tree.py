"""A site's tree in a bucket: keys are paths, a folder is what keys begin with, or a marker "name/".

What S3 does not know, and what is done instead: what is there is asked for before a file is made or a folder
removed (an object that comes in between is not seen, unless the server knows If-None-Match); a rename copies
and then removes, file by file; a folder that was never made ends with the last file in it. Words that no path
can have (empty, "." or "..") are told as special files, so that nobody takes a list for complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from workers.storage.trees.base import (
    Entry,
    Part,
    Plain,
    Receiving,
    StorageFailed,
    Traits,
    TransferOptions,
    Tree,
    Trouble,
    clean,
    inside,
    shown,
)
from workers.storage.trees.s3 import copying, marks
from workers.storage.trees.s3.client import Account, told
from workers.storage.trees.s3.writing import Uploading
from workers.vocabulary.transfers.reach import Reach

_FOLDER: Final = 0o040755
_FILE: Final = 0o100644
_ODD: Final = 0o060644  # a type that nobody copies
_KEY_MAX: Final = 1024
_READ: Final = 1 << 20
_MD5: Final = re.compile(r"[0-9a-f]{32}")


class S3Tree(Plain):
    """Keeps ``base.Tree``."""

    traits = Traits(renames=False, folders=False, checksums=("md5",))

    def __init__(self, reach: Reach, streams: int) -> None:
        self.account = Account(reach, max(1, streams))
        self.streams = max(1, streams)
        words = [word for word in reach.path.split("/") if word]
        if not words:
            raise StorageFailed(f"{reach.shown}: its path must begin with a bucket", Trouble.OTHER)
        self.bucket = words[0]
        self._prefix = "".join(f"{word}/" for word in words[1:])
        self.default_path = clean(reach.default_path.encode())
        #: The server does not know If-None-Match.
        self.unconditional = False

    def close(self) -> None:
        self.account.close()

    # --- keys ---------------------------------------------------------------------------------------------

    def key(self, path: bytes) -> str:
        """Of a file. Raises StorageFailed NAME where none can be."""
        try:
            found = self._prefix + path[1:].decode()
        except UnicodeDecodeError:
            raise self.failed(path, "is no UTF-8, which keys are", Trouble.NAME) from None
        if len(found.encode()) > _KEY_MAX:
            raise self.failed(path, f"is longer than {_KEY_MAX} bytes with its prefix", Trouble.NAME)
        return found

    def folder_key(self, path: bytes) -> str:
        """What the keys in a folder begin with; its marker's key."""
        return self._prefix if path == b"/" else self.key(path) + "/"

    def failed(self, path: bytes, words: str, trouble: Trouble) -> StorageFailed:
        return StorageFailed(f"{self.account.where}: {shown(path)} {words}", trouble)

    def ask(self, operation: str, path: bytes, **given: Any) -> Any:
        return self.account.call(operation, shown(path), Bucket=self.bucket, **given)

    # --- looking ------------------------------------------------------------------------------------------

    def head(self, path: bytes) -> Any | None:
        """What the server tells of a file; None: there is none."""
        try:
            return self.ask("head_object", path, Key=self.key(path))
        except StorageFailed as failed:
            if failed.trouble is not Trouble.MISSING:
                raise
            return None

    def begins(self, path: bytes, most: int = 1) -> list[str]:
        """The first keys in a folder, its marker among them."""
        page = self.ask("list_objects_v2", path, Prefix=self.folder_key(path), MaxKeys=most)
        return [item["Key"] for item in page.get("Contents", ())]

    def stat(self, path: bytes) -> Entry:
        path = clean(path)
        name = path.rpartition(b"/")[2]
        if path == b"/":
            self.ask("head_bucket", path)
            return Entry(name, _FOLDER)
        found = self.head(path)
        if found is not None:
            return _entry(name, found["ContentLength"], found.get("LastModified"), found.get("ETag", ""))
        if self.begins(path):
            return Entry(name, _FOLDER)
        raise self.failed(path, "is not there", Trouble.MISSING)

    def scan(self, path: bytes) -> Iterator[Entry]:
        path = clean(path)
        prefix = self.folder_key(path)
        told_of = path == b"/"
        for page in self.account.pages(shown(path), Bucket=self.bucket, Prefix=prefix, Delimiter="/"):
            for item in page.get("CommonPrefixes", ()):
                told_of = True
                yield _named(item["Prefix"][len(prefix) : -1], _FOLDER, 0, None, "")
            for item in page.get("Contents", ()):
                told_of = True
                if item["Key"] != prefix:
                    yield _named(
                        item["Key"][len(prefix) :], _FILE, item["Size"], item["LastModified"], item["ETag"]
                    )
        if not told_of:
            self.stat(path)
            raise self.failed(path, "is no folder", Trouble.NOT_FOLDER)

    def checksum(self, path: bytes, algorithm: str) -> str:
        """The MD5 of what was stored as one object: that is its ETag, unless it is encrypted by a key."""
        path = clean(path)
        found = self.head(path)
        if found is None:
            raise self.failed(path, "is not there", Trouble.MISSING)
        return md5_of(found) if algorithm == "md5" else ""

    # --- reading ------------------------------------------------------------------------------------------

    @contextmanager
    def read(self, path: bytes, *, offset: int = 0, version: str = "") -> Iterator[Iterator[bytes]]:
        path = clean(path)
        given: dict[str, Any] = {"Range": f"bytes={offset}-"} if offset else {}
        if version:
            given["IfMatch"] = f'"{version}"'
        try:
            answer = self.ask("get_object", path, Key=self.key(path), **given)
        except StorageFailed as failed:
            if failed.status == 416:
                yield iter(())  # there is nothing after its end
                return
            if failed.status == 412:
                raise self.failed(path, "has changed meanwhile", Trouble.CHANGED) from None
            raise
        body = answer["Body"]
        try:
            if version and answer.get("ETag", "").strip('"') != version:
                raise self.failed(path, "has changed meanwhile", Trouble.CHANGED)
            extent = answer.get("ContentRange", "")
            if extent and not extent.startswith(f"bytes {offset}-"):
                raise self.failed(path, "came in another part than was asked for", Trouble.OTHER)
            yield self._pieces(path, body, 0 if extent else offset)
        finally:
            body.close()

    def _pieces(self, path: bytes, body: Any, skip: int) -> Iterator[bytes]:
        """A server that knows no ranges sends what is there already once more."""
        while True:
            with told(self.account.where, shown(path)):
                piece = body.read(_READ)
            if not piece:
                return
            if skip < len(piece):
                yield piece[skip:]
            skip = max(0, skip - len(piece))

    # --- writing ------------------------------------------------------------------------------------------

    def receive(self, path: bytes, part: Part, size: int) -> Receiving:
        path = inside(path)
        return Uploading(self, path, part, size)

    def discard(self, path: bytes, part: Part) -> None:
        of = {part.attempt, part.attempt if part.before is None else part.before}
        marks.discard(self, clean(path), part.tag, of)

    def remove(self, path: bytes) -> None:
        path = inside(path)
        if self.head(path) is None:
            if self.begins(path):
                raise self.failed(path, "is a folder", Trouble.IS_FOLDER)
            raise self.failed(path, "is not there", Trouble.MISSING)
        self.ask("delete_object", path, Key=self.key(path))

    def remove_folder(self, path: bytes) -> None:
        path = inside(path)
        found = self.begins(path, 2)
        if not found:
            raise self.failed(path, "is not there", Trouble.MISSING)
        if found != [self.folder_key(path)]:
            raise self.failed(path, "is not empty", Trouble.NOT_EMPTY)
        self.ask("delete_object", path, Key=self.folder_key(path))

    def mkdir(self, path: bytes, mode: int | None = None) -> None:
        path = clean(path)
        key = self.folder_key(path)
        if path == b"/" or self.head(path) is not None or self.begins(path):
            raise self.failed(path, "is there already", Trouble.EXISTS)
        self.ask("put_object", path, Key=key, Body=b"")

    def rename(self, source: bytes, target: bytes, *, overwrite: bool = False) -> None:
        copying.rename(self, inside(source), inside(target), overwrite)

    def copy_here(
        self,
        source: Tree,
        path: bytes,
        receiving: Receiving,
        moved: Callable[[int], None],
        options: TransferOptions,
    ) -> bool:
        if not isinstance(source, S3Tree) or source.account.same != self.account.same:
            return False
        return isinstance(receiving, Uploading) and receiving.copied(source, clean(path), moved)

    # --- parts --------------------------------------------------------------------------------------------

    def free_for(self, path: bytes, *, overwrite: bool) -> None:
        """Raises StorageFailed EXISTS where a file of that name may not be made."""
        page = self.ask("list_objects_v2", path, Prefix=self.key(path), MaxKeys=1)
        if not page.get("Contents"):
            return  # neither the name nor anything that begins with it
        if (not overwrite and self.head(path) is not None) or self.begins(path):
            raise self.failed(path, "is there already", Trouble.EXISTS)


def _named(word: str, mode: int, size: int, when: datetime | None, etag: str) -> Entry:
    if word in ("", ".", ".."):
        return Entry(f"({word or 'an empty name'})".encode(), _ODD)
    return _entry(word.encode(), size, when, etag) if mode == _FILE else Entry(word.encode(), mode)


def _entry(name: bytes, size: int, when: datetime | None, etag: str) -> Entry:
    mtime = int(when.timestamp() * 1000) * 1_000_000 if when else 0
    return Entry(name, _FILE, size, mtime, version=etag.strip('"'))


def md5_of(answer: Any) -> str:
    """The ETag of an answer, where it is an MD5; "" else."""
    etag = str(answer.get("ETag", "")).strip('"').lower()
    plain = answer.get("ServerSideEncryption", "AES256") == "AES256" and "SSECustomerAlgorithm" not in answer
    return etag if plain and _MD5.fullmatch(etag) else ""
