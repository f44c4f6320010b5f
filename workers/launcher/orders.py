"""A checked request to start a run: what the server understood and the shim carries out.

Standard library only.
"""

from __future__ import annotations

import os

from . import control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .control import Record

_LIMITS = ("nproc", "nofile", "data_bytes", "memory_bytes", "disk_bytes", "cpu_m")
_LEAST_MEMORY = 32 * 1024 * 1024  # bytes; less, and nothing can start


class RefusedError(Exception):
    """A request that is answered with an error code and a message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Order:
    """What to execute, where, and within which limits."""

    __slots__ = (
        "argv", "as_of", "cpu_m", "data_bytes", "disk_bytes", "env", "fence", "head_bytes", "isolation",
        "memory_bytes", "name", "nofile", "nproc", "scratch", "tail_bytes", "whole",
    )  # fmt: skip

    def __init__(self, request: Record) -> None:
        """Check a request. Raises RefusedError (bad_name, bad_request)."""
        try:
            self.name = control.check_name(request.get("name"))
        except control.BadNameError as error:
            raise RefusedError("bad_name", str(error)) from None
        self.argv = _argv(request.get("argv"))
        self.env = _env(request.get("env"))
        scratch = request.get("scratch")
        if not isinstance(scratch, str) or not scratch.startswith("/") or "\0" in scratch:
            raise RefusedError("bad_request", f"scratch must be an absolute path, not {scratch!r}")
        self.scratch = os.path.realpath(scratch)
        limits = request.get("limits") or {}
        unknown = sorted(set(limits) - set(_LIMITS)) if isinstance(limits, dict) else [str(limits)]
        if unknown:
            raise RefusedError("bad_request", f"unknown limits {unknown}: known are {', '.join(_LIMITS)}")
        self.nproc = _count("limits.nproc", limits.get("nproc"))
        self.nofile = _count("limits.nofile", limits.get("nofile"))
        self.data_bytes = _count("limits.data_bytes", limits.get("data_bytes"))
        memory = _count("limits.memory_bytes", limits.get("memory_bytes"))
        self.memory_bytes = None if memory is None else max(memory, _LEAST_MEMORY)
        self.disk_bytes = _count("limits.disk_bytes", limits.get("disk_bytes"))
        cpu_m = _count("limits.cpu_m", limits.get("cpu_m"))
        self.cpu_m = 1000 if cpu_m is None else cpu_m
        self.head_bytes = _count("head_bytes", request.get("head_bytes"))
        self.tail_bytes = _count("tail_bytes", request.get("tail_bytes"))
        self.whole = _streams(request.get("whole"))
        self.fence = bool(request.get("fence", True))
        self.isolation = str(request.get("isolation") or "")  # not to be started with less
        as_of = request.get("as_of")
        self.as_of = None if as_of is None else float(as_of)


def _argv(value: object) -> list[str]:
    if not isinstance(value, list) or not value or not all(_is_text(item) for item in value) or not value[0]:
        raise RefusedError("bad_request", "argv must be a non-empty list of texts without a NUL character")
    return list(value)


def _env(value: object) -> dict[str, str]:
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise RefusedError("bad_request", "env must be an object of names and texts")
    for key, text in value.items():
        if not _is_text(key) or not key or "=" in key or not _is_text(text):
            raise RefusedError("bad_request", f"env: {str(key)[:80]!r} is no name with a text as its value")
    return dict(value)


def _streams(value: object) -> tuple[str, ...]:
    """Output files without a cap."""
    value = [] if value is None else value
    if not isinstance(value, list) or not set(value) <= set(control.STREAMS):
        raise RefusedError("bad_request", f"whole names some of {', '.join(control.STREAMS)}, not {value!r}")
    return tuple(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _count(field: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise RefusedError("bad_request", f"{field} must be a whole number from 0 up, not {value!r}")
    return value
