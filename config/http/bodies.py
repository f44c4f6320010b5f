"""How long a body may be, and what is wrong with one that did not arrive. ``config.serving.arrivals`` reads
them."""

from __future__ import annotations

import io
import re
from typing import Any, Final

from django.conf import settings

#: Bodies that may be longer than all others: whose paths look so, and the setting with their limit in MiB.
#: Their views take them in pieces.
_LONG: Final = (
    (re.compile(r"/workqueue/api/v1\.[01]/worker/jobs/[0-9]+/elements/[0-9]+"), "GANTRY_WORKER_REPORT_MB"),
)


def most(path: str) -> int:
    """The longest body of a request for this path, in bytes."""
    for pattern, setting in _LONG:
        if pattern.fullmatch(path):
            return int(getattr(settings, setting)) * 1024 * 1024
    return int(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)


class SlowBody(OSError):
    """It took longer than it may. An OSError, as every failure to read a body is."""

    def __init__(self) -> None:
        super().__init__("the body did not arrive in time: send it again, faster")


class CutBody(OSError):
    """The connection ended before it did: what came is not what was meant, whoever parses it."""

    def __init__(self) -> None:
        super().__init__("the body ended before its Content-Length: the connection was cut")


class FailedBody(io.RawIOBase):
    """In the place of one that did not arrive: whoever reads it is told so."""

    def __init__(self, why: OSError) -> None:
        self._why = why

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        raise self._why
