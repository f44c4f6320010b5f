"""What an OSError of a local path means, as a sentence. Pure."""

from __future__ import annotations

import errno
import os
from typing import Final

from workers.storage.trees.base import StorageFailed, Trouble, shown

_MEANS: Final = {
    Trouble.MISSING: (errno.ENOENT,),
    Trouble.DENIED: (errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV, errno.ELOOP),
    Trouble.AWAY: (
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EAGAIN,
        errno.EBUSY,
        errno.EMFILE,
        errno.ENFILE,
    ),
    Trouble.FULL: (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    Trouble.EXISTS: (errno.EEXIST,),
    Trouble.NOT_EMPTY: (errno.ENOTEMPTY,),
    Trouble.NOT_FOLDER: (errno.ENOTDIR,),
    Trouble.IS_FOLDER: (errno.EISDIR,),
    Trouble.NAME: (errno.ENAMETOOLONG, errno.EILSEQ),
}
_TROUBLES: Final = {number: trouble for trouble, numbers in _MEANS.items() for number in numbers}
_WORDS: Final = {
    errno.EXDEV: "leads out of the site (by a link, or into another file system)",
    errno.ELOOP: "leads through a link that is not followed, or through too many",
    errno.EACCES: "the account of this node's worker may not do that",
    errno.EPERM: "the account of this node's worker may not do that",
    errno.EROFS: "the file system can only be read",
    errno.EAGAIN: "was moved while it was opened",
}


def failed(error: OSError, path: bytes) -> StorageFailed:
    """The refusal of what was asked for ``path``."""
    number = error.errno or 0
    words = _WORDS.get(number) or (os.strerror(number).lower() if number else str(error))
    return StorageFailed(f"{shown(path)}: {words}", _TROUBLES.get(number, Trouble.OTHER))
