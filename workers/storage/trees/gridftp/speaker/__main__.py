"""One session with GridFTP servers, in a process of its own: what a fault in a C library or a silent server
cannot take along. Run as a script; standard library only; libglobus_ftp_client does the protocol.

It is told what to do over the socket that is its standard input: one JSON object a line, with a descriptor
beside it where content moves (a file, or a pipe), and answers with one or more lines:

    {"do": "stat" | "mkdir" | "rmdir" | "unlink" | "features", "url": ...}
    {"do": "rename", "url": ..., "to": ...}      {"do": "chmod", "url": ..., "mode": n}
    {"do": "utime", "url": ..., "at": s}         {"do": "checksum", "url": ..., "algorithm": "ADLER32"}
    {"do": "list" | "get", "url": ..., "offset": n, "streams": n} + descriptor to write to
    {"do": "put", "url": ..., "offset": n, "streams": n, "whole": true|false} + descriptor to read from
        to its end; ``whole``: everything is in it already. From offset 0 what is there is removed before.
    {"do": "third", "url": ..., "to": ..., "streams": n}

    {"do": "authority", "pem": ...}          -> {"hash": ..., "subject": ...}, as OpenSSL and Globus name it

    -> {"begun": true}               the server has opened the file, and has the first of what came by a pipe
    -> {"moved": bytes so far}       twice a second, where no pipe tells its other end how far it is
    -> {"ok": true, ...} | {"ok": false, "code": FTP reply or 0, "text": ...}

It ends with its parent, and when the socket is closed. URLs are percent-encoded ASCII. One at a time.
"""

from __future__ import annotations

import importlib
import socket
import sys
import types
from pathlib import Path


def _as_package() -> str:
    """Import name of the folder this file is in."""
    if __package__:
        return __package__
    # The folder itself must not be searched: its modules are named for what they do, like the standard ones.
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if str(Path(entry).resolve()) != here]
    package = types.ModuleType("gantry_gridftp")
    package.__path__ = [here]
    sys.modules[package.__name__] = package
    return package.__name__


def main() -> None:
    """With an argument: only see whether the library is there."""
    package = _as_package()
    try:
        if sys.argv[1:]:
            importlib.import_module(f"{package}.library").Library()
            return
        speaker = importlib.import_module(f"{package}.serving").Speaker(socket.socket(fileno=0))
    except (OSError, AttributeError) as error:
        sys.exit(str(error))  # what the probe shows
    speaker.serve()


if __name__ == "__main__":
    main()
