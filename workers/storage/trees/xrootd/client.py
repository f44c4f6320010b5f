"""The client library within bounds: its limits, how it is asked, and how its failures are told.

Its limits and whom it authenticates as stand in the environment, which is the process's: a mover is a process
of its own, and whoever set one of them before (an operator) is not overruled.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from typing import Any, Final

from workers.storage.base import StorageFailed, Trouble
from workers.storage.trees.base import STALL_S, shown
from workers.storage.trees.xrootd import errors

#: https://xrootd.web.cern.ch/doc/man/xrdcp.1.html "ENVIRONMENT", in seconds. By default a dead server is
#: noticed after half an hour, and a broken connection is not tried again for as long.
_LIMITS: Final = {
    "XRD_CONNECTIONWINDOW": "10",
    "XRD_CONNECTIONRETRY": "1",
    "XRD_REQUESTTIMEOUT": f"{STALL_S:.0f}",
    "XRD_STREAMTIMEOUT": f"{STALL_S:.0f}",
    "XRD_STREAMERRORWINDOW": "1",
    "XRD_TIMEOUTRESOLUTION": "1",
    # Nothing is tried again in here.
    "XRD_CPRETRY": "0",
    "XRD_READRECOVERY": "0",
    "XRD_WRITERECOVERY": "0",
}
for _name, _value in _LIMITS.items():
    os.environ.setdefault(_name, _value)

# Imported only now: they read the environment when they are. They have no types.
xrootd: Any = import_module("XRootD.client")
_bare: Any = import_module("pyxrootd.client")
_flags: Any = import_module("XRootD.client.flags")
DirListFlags, OpenFlags, QueryCode = _flags.DirListFlags, _flags.OpenFlags, _flags.QueryCode
StatInfoFlags, HostTypes = _flags.StatInfoFlags, _flags.HostTypes
_Status: Any = import_module("XRootD.client.responses").XRootDStatus
_finalize: Any = import_module("XRootD.client.finalize").finalize

#: Files that are open. The library's own duty at the end of a process looks through every object there is,
#: which wakes lazy ones of other libraries and dies of what they raise.
open_files: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def _end() -> None:
    """Files first: a file that is closed when nobody works any more waits forever."""
    for file in list(open_files):
        if file.is_open():
            file.close(timeout=REQUEST_S)
    _bare.__dict__["__XrdCl_Stop_Threads"]()


atexit.unregister(_finalize)
atexit.register(_end)

#: Seconds that a request may take as a whole, as the library is told; what transfers many answers or lets the
#: server read a file takes longer, and there the library looks at the silence.
REQUEST_S: Final = int(STALL_S)
LONG_S: Final = 3600
#: Beyond the library's own limit, in case that it does not keep it.
_GRACE_S: Final = 15.0


def text_of(path: bytes) -> str:
    """A path as XRootD carries it. Raises StorageFailed NAME for what it would take for something else."""
    try:
        text = path.decode()
    except UnicodeDecodeError:
        raise StorageFailed(
            f"{shown(path)}: XRootD's client can carry no name that is not UTF-8", Trouble.NAME
        ) from None
    for char, why in (("?", "ends a path there"), ("\n", "separates names by newlines")):
        if char in text:
            raise StorageFailed(f"{shown(path)}: XRootD can hold no such name: it {why}", Trouble.NAME)
    return text


class Server:
    """One endpoint as one user. Used by many threads; all requests share the library's connection."""

    def __init__(self, host: str, port: int, user: str = "", more: str = "") -> None:
        """``more`` is opaque data for every request, "a=b&c=d"."""
        place = f"[{host}]" if ":" in host else host
        self.shown = f"XRootD at {place}:{port or 1094}"
        self._url = f"root://{user + '@' if user else ''}{place}:{port or 1094}/"
        self._more = f"?{more}" if more else ""
        self.files = xrootd.FileSystem(self._url + self._more)
        self._bare = _bare.FileSystem(self._url + self._more)

    def url(self, path: str) -> str:
        """``path`` begins with a slash."""
        return f"{self._url}{path}{self._more}"

    def listed(self, text: str, *, attributes: bool) -> tuple[Any, list[dict[str, Any]]]:
        """Status, and {"name", "statinfo"} of whatever is in a folder, as dictionaries, which cost half of
        the library's objects. SystemError: a name is not UTF-8."""
        flags = DirListFlags.STAT if attributes else DirListFlags.NONE
        status, found = self._bare.dirlist(text, flags, LONG_S)
        return _Status(status), found["dirlist"] if found else []

    def told(self, what: bytes, answer: tuple[Any, Any]) -> Any:
        """The response. Raises StorageFailed."""
        status, response = answer
        if not status.ok:
            raise errors.failed(self.shown, shown(what), status)
        return response

    def result(self, what: bytes, asked: Asked) -> Any:
        """Wait for what was asked. Raises StorageFailed."""
        return self.told(what, self.answered(what, asked))

    def answered(self, what: bytes, asked: Asked) -> tuple[Any, Any]:
        """The same, whatever the answer is: status and response. Raises StorageFailed where none comes."""
        try:
            return asked.result(REQUEST_S + _GRACE_S)
        except TimeoutError:
            raise StorageFailed(f"{self.shown}: {shown(what)}: no answer", Trouble.AWAY) from None

    def is_alone(self) -> bool:
        """It has the files itself: each question is answered by the same machine. Of others (a redirector)
        each may be answered by another one, to which other numbers are the same folder."""
        status, told = self.files.protocol(timeout=REQUEST_S)
        return bool(status.ok and told.hostinfo & HostTypes.IS_SERVER)


#: The answer to a request that is under way: status and response.
Asked = Future[tuple[Any, Any]]


def set_property(file: Any, name: str, value: str) -> None:
    """The library gives Python's True away without counting it (6.2.1): before Python 3.12 the process died
    of it after some hundred files. So it is counted here; a library that counts loses nothing by it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(file.set_property(name, value)))


def asked(method: Callable[..., Any], *arguments: Any) -> Asked:
    """Ask and do not wait. The arguments live until the answer is here: the library does not copy them."""
    future: Asked = Future()

    def answered(status: Any, response: Any, hosts: Any, kept: Any = arguments) -> None:
        future.set_result((status, response))

    status = method(*arguments, timeout=REQUEST_S, callback=answered)
    if not status.ok:
        future.set_result((status, None))
    return future
