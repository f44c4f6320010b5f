"""What a run executes: a frozen dataclass per kind of run, to and from JSON, versioned.

Pure: no database, no Django. Secrets stand in a spec only by reference (``secret_ids``). A reader accepts
every version up to its own, so that a newer worker executes what an older API stored; unknown keys are
ignored, so that an older worker can read what a newer API stored.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Final, Self

MIB: Final = 1024 * 1024

#: What is kept of one output stream of one attempt by default, in bytes (head + tail).
DEFAULT_LOG_HEAD: Final = 16 * MIB
DEFAULT_LOG_TAIL: Final = 48 * MIB


class NewerSpecError(ValueError):
    """A newer release stored this spec: only a worker of that release can execute it."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base: what every run asks of a node. ``cpu_m`` is thousandths of a CPU, ``mem_mb`` MiB."""

    KIND: ClassVar[str] = ""
    VERSION: ClassVar[int] = 1

    cpu_m: int = 1000
    mem_mb: int = 512

    def to_json(self) -> dict[str, Any]:
        """The JSON object stored with the run; ``kind`` and ``version`` included."""
        return {"kind": self.KIND, "version": self.VERSION, **asdict(self)}

    def host_ports(self) -> frozenset[str]:
        """Fixed ports of the host that a run of this spec holds, "8080/tcp"."""
        return frozenset()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read a stored spec. Raises NewerSpecError for a newer version than this code knows."""
        if int(data.get("version", 1)) > cls.VERSION:
            raise NewerSpecError(
                f"the {cls.KIND} spec has version {data.get('version')}, "
                f"this worker reads up to {cls.VERSION}: upgrade the worker"
            )
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(frozen=True, kw_only=True)
class ProcessSpec(Spec):
    """A command that runs as a process of the node.

    ``argv`` is executed as it is (no shell unless argv says so). ``env`` is the whole environment beside
    PATH, HOME and TMPDIR. ``uris`` are fetched into the working directory first. ``mem_mb`` is MiB.
    """

    KIND: ClassVar[str] = "process"

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    uris: list[str] = field(default_factory=list)
    log_head: int = DEFAULT_LOG_HEAD
    log_tail: int = DEFAULT_LOG_TAIL


@dataclass(frozen=True, kw_only=True)
class ContainerSpec(Spec):
    """A container on the node's Docker Engine (tasks family, contract page 10).

    ``cpu_m`` is thousandths of a CPU, ``mem_mb`` MiB (memory and swap together). ``ports`` are
    {container_port, host_port, protocol}; ``volumes`` {container_path, host_path, mode}; ``parameters``
    {key, value}. Everything dangerous was checked against the tenant's policy at submission.
    """

    KIND: ClassVar[str] = "container"

    image: str
    args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    uris: list[str] = field(default_factory=list)
    network: str = "BRIDGE"
    force_pull: bool = True
    privileged: bool = False
    ports: list[dict[str, Any]] = field(default_factory=list)
    volumes: list[dict[str, Any]] = field(default_factory=list)
    parameters: list[dict[str, str]] = field(default_factory=list)
    log_head: int = DEFAULT_LOG_HEAD
    log_tail: int = DEFAULT_LOG_TAIL

    def host_ports(self) -> frozenset[str]:
        return frozenset(
            f"{item['host_port']}/{item['protocol']}" for item in self.ports if item["host_port"]
        )
