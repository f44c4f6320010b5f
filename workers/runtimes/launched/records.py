"""What passes between a worker and its launcher, as typed records.

Imports the standard library only. The launcher writes plain JSON (workers.launcher.shim); fields that it
may add later are ignored here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What to execute. `env` is the whole environment of the command (see fresh_environment)."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    scratch: Path
    nproc: int | None = None  # processes and threads of the run at once
    nofile: int | None = None  # open files per process
    data_bytes: int | None = None  # RLIMIT_DATA per process
    memory_bytes: int | None = None  # of the run as a whole, shared memory included; None: not a command
    disk_bytes: int | None = None  # that its scratch folder may take
    cpu_m: int | None = None  # its share where CPUs are short, in thousandths of a CPU
    head_bytes: int | None = None  # of each output file; with tail_bytes None too: no cap
    tail_bytes: int | None = None
    whole: Sequence[str] = ()  # output files ("stdout") that have no cap all the same
    fence: bool = True  # may the guard stop it when the worker no longer renews?
    as_of: float | None = None  # control.boottime() at which the worker knew that it may start this
    isolation: str = ""  # namespaces: not to be started without

    def frame(self) -> dict[str, Any]:
        limits = {
            name: getattr(self, name)
            for name in ("nproc", "nofile", "data_bytes", "memory_bytes", "disk_bytes", "cpu_m")
        }
        return {
            "op": "start",
            "name": self.name,
            "argv": list(self.argv),
            "env": dict(self.env),
            "scratch": str(self.scratch),
            "limits": limits,
            "head_bytes": self.head_bytes,
            "tail_bytes": self.tail_bytes,
            "whole": list(self.whole),
            "fence": self.fence,
            "as_of": self.as_of,
            "isolation": self.isolation,
        }


@dataclass(frozen=True, slots=True)
class Started:
    """Written before the command could execute. Process ids are the host's; `at` is seconds since 1970."""

    shim_pid: int
    pid: int | None  # of the main process; None where only files are left
    uid: int
    fence: bool
    at: float
    boottime: float
    boot_id: str
    isolation: str

    @classmethod
    def read(cls, record: Mapping[str, Any] | None) -> Self | None:
        return None if record is None else cls(**{item.name: record[item.name] for item in fields(cls)})


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """One output file at the end: its logical size, the bytes [start, end) that the cap dropped, and how many
    bytes found no space on the disk; ``untold`` is the line of that which found none either."""

    size: int = 0
    hole: tuple[int, int] | None = None
    missing: int = 0
    untold: str = ""

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        hole = record.get("hole")
        return cls(
            int(record.get("bytes", 0)),
            (int(hole[0]), int(hole[1])) if hole else None,
            int(record.get("missing", 0)),
            str(record.get("untold", "")),
        )


@dataclass(frozen=True, slots=True)
class Exit:
    """How a run ended; no process of it is left. Exactly one of code, signal and error is set."""

    code: int | None
    signal: int | None
    error: str | None  # it could not be executed
    killed: str | None  # why it was stopped, when it was
    started_at: float  # seconds since 1970
    ended_at: float
    ran_s: float  # by a clock that nobody can set
    max_rss_kb: int  # of its largest process; about 10 MB at least, the size of the fork before exec
    cpu_s: float
    stdout: StreamEnd = field(default_factory=StreamEnd)
    stderr: StreamEnd = field(default_factory=StreamEnd)
    uncapped: bool = False  # the file system cannot punch holes: the output was kept whole
    oom: bool = False  # a process was killed because the run was out of memory
    told: Mapping[str, int] = field(default_factory=dict)  # of a limit that ended it: limit, found (bytes)

    @classmethod
    def read(cls, record: Mapping[str, Any] | None) -> Self | None:
        if record is None:
            return None
        return cls(
            code=record["code"],
            signal=record["signal"],
            error=record["error"],
            killed=record["killed"],
            started_at=record["started_at"],
            ended_at=record["ended_at"],
            ran_s=record["ran_s"],
            max_rss_kb=record["max_rss_kb"],
            cpu_s=record["cpu_s"],
            stdout=StreamEnd.read(record.get("stdout") or {}),
            stderr=StreamEnd.read(record.get("stderr") or {}),
            uncapped=bool(record.get("uncapped")),
            oom=bool(record.get("oom")),
            told=record.get("told") or {},
        )


@dataclass(frozen=True, slots=True)
class RunState:
    """absent, prepared, running, exited or lost (workers.launcher.control), and what is recorded."""

    state: str
    started: Started | None
    exit: Exit | None
    existed: bool = True  # False: this very request started it

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        return cls(
            state=record["state"],
            started=Started.read(record["started"]),
            exit=Exit.read(record["exit"]),
            existed=bool(record.get("existed", True)),
        )


@dataclass(frozen=True, slots=True)
class Hello:
    """Who answers. `isolation`: namespaces, uids or none. `can_start` False: commands would run as root.

    `bounds`: the version of cgroups that bounds a command's "memory" and "cpu", 0 for none, and the "reason".
    """

    version: int
    pid: int
    boot_id: str
    isolation: str
    isolation_reason: str
    bounds: Mapping[str, Any]
    can_start: bool
    live: tuple[str, ...]
    renewed_age: float | None  # seconds; None: never since the machine started

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        return cls(
            version=record["version"],
            pid=record["pid"],
            boot_id=record["boot_id"],
            isolation=record["isolation"],
            isolation_reason=record["isolation_reason"],
            bounds=record["bounds"],
            can_start=record["can_start"],
            live=tuple(record["live"]),
            renewed_age=record["renewed_age"],
        )


def fresh_environment(scratch: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a run: PATH, HOME and TMPDIR, and what its owner gave (who may replace them)."""
    return {"PATH": DEFAULT_PATH, "HOME": str(scratch), "TMPDIR": str(scratch / "tmp"), **given}
