"""What a speaker's refusal means, as a sentence. Pure."""

from __future__ import annotations

import errno
import re
from typing import Any, Final

from workers.storage.trees.base import StorageFailed, Trouble, shown

#: The first that is found tells. Globus says the errno; other servers (dCache, StoRM) only words.
_MEANS: Final = (
    (Trouble.MISSING, rf"Errno: {errno.ENOENT}\b|No such file|not found|does not exist"),
    (
        Trouble.DENIED,
        rf"Errno: ({errno.EACCES}|{errno.EPERM}|{errno.EROFS}|{errno.ELOOP})\b|ermission denied|not allowed",
    ),
    (Trouble.NOT_EMPTY, rf"Errno: {errno.ENOTEMPTY}\b|not empty"),
    (Trouble.EXISTS, rf"Errno: {errno.EEXIST}\b|PATH_EXISTS|[Ee]xists"),
    (Trouble.NOT_FOLDER, rf"Errno: {errno.ENOTDIR}\b|Not a directory"),
    (Trouble.IS_FOLDER, rf"Errno: {errno.EISDIR}\b|Is a directory|not a plain file"),
    (Trouble.FULL, rf"Errno: ({errno.ENOSPC}|{errno.EDQUOT}|{errno.EFBIG})\b|No space left|[Qq]uota"),
    (Trouble.NAME, rf"Errno: ({errno.ENAMETOOLONG}|{errno.EILSEQ})\b|[Nn]ame too long"),
    (Trouble.AWAY, rf"Errno: ({errno.EMFILE}|{errno.EIO}|{errno.ESTALE}|{errno.ETIMEDOUT})\b"),
)
#: What goes wrong before a path is asked for.
_DOORS: Final = (
    (
        r"has expired|certificate expired|[Ee]xpired",
        "a certificate, the proxy's or the server's, has expired",
    ),
    (
        r"signing policy|Untrusted|verify failed|verify credential",
        "the server's certificate is of none of the site's authorities (cas), or ours of none of its own",
    ),
    (
        r"Authorization denied|name in certificate|does not match|Mismatched",
        "the certificate is another host's",
    ),
    (
        r"Valid credentials could not be found|Must perform GSSAPI",
        "it wants a proxy certificate: we have none",
    ),
    (r"[Gg]ridmap|globus_gss_assist|mapping", "the server knows no account for our certificate"),
    (r"GSSAPI|gss_|GSS ", "we could not show each other who we are"),
)
_NOISE: Final = re.compile(
    r"^(globus_ftp_client: the server|GlobusError|GridFTP-Errno|GridFTP-Reason|End\.|GSS failure|"
    r"Command failed\. : globus_l_gfs_file_open failed|globus_xio: A system call failed)"
)
_LONGEST: Final = 300


def failed(answer: dict[str, Any], path: bytes, where: str) -> StorageFailed:
    """The refusal of what was asked for ``path`` at the server ``where``."""
    text, code = str(answer.get("text", "")), int(answer.get("code", 0))
    if code in (0, 220, 530, 535):
        for pattern, words in _DOORS:
            if re.search(pattern, text):
                return StorageFailed(f"{shown(path)}: {where}: {words}: {_said(text)}", Trouble.DENIED)
    if code in (530, 535):
        return StorageFailed(f"{shown(path)}: {where} does not let us in: {_said(text)}", Trouble.DENIED)
    if code in (0, 220) or 400 <= code < 440:  # no reply at all, or of the connection
        return StorageFailed(
            f"{shown(path)}: {where} does not answer or was cut off: {_said(text)}", Trouble.AWAY
        )
    for trouble, pattern in _MEANS:
        if re.search(pattern, text):
            return StorageFailed(f"{shown(path)}: {_said(text)}", trouble)
    return StorageFailed(f"{shown(path)}: the server said no: {_said(text)}", Trouble.OTHER)


def _said(text: str) -> str:
    """The server's or the library's words on one line, without what says nothing."""
    lines = (re.sub(r"^\d{3}[- ](\d{3}[- ])?", "", line).strip() for line in text.splitlines())
    kept = [line.removeprefix("GridFTP-Error-String: ") for line in lines if line and not _NOISE.match(line)]
    words = "; ".join(dict.fromkeys(kept)) or text.strip() or "no reason"
    words = "".join(c if c.isprintable() else " " for c in words)
    return words if len(words) <= _LONGEST else words[:_LONGEST] + "..."
