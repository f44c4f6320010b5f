"""What the server has no hand for: the silence of clients that do not take what they asked for.

granian has time limits for headers, and none for what a client does not read. The kernel has one:
TCP_USER_TIMEOUT, which accepted connections inherit from the listening one (tcp(7)); so this process looks
for its own sockets. Linux only, as all of this service.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

#: More are not needed.
FILES: Final = 65_536
#: Seconds after which a peer is asked whether it is still there, and between two more questions.
_ASKED_S: Final = 15
_ASKED_AGAIN_S: Final = 5


def _own() -> Iterator[socket.socket]:
    """Copies of the TCP sockets of this process; each is closed when the next one is asked for."""
    for name in Path("/proc/self/fd").iterdir():
        # One that is closed meanwhile is none of ours any more; a copy stays the same connection.
        with suppress(OSError):
            if str(name.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name.name))) as link:
                    if link.type == socket.SOCK_STREAM and link.family in (socket.AF_INET, socket.AF_INET6):
                        yield link


def allow_many() -> None:
    """Let this process open as many files as it may: a shell's 1,024 are fewer than its connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def limit_silence(seconds: float) -> bool:
    """Connections end that take nothing of what is sent for ``seconds``; True when the listening one was
    found.

    Those that are open are limited at once, those to come inherit it. Only what a client asked for on the
    listening port is touched, none of this process' own connections.
    """
    listening = {
        link.getsockname()[1] for link in _own() if link.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    }
    for link in _own():
        if link.getsockname()[1] in listening:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _ASKED_S)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ASKED_AGAIN_S)
    return bool(listening)
