"""What a run executes: a frozen dataclass per kind of run, to and from JSON, versioned.

Pure: no database, no Django. Secrets stand in a spec only by reference (``secret_ids``). A reader accepts
every version up to its own, so that a newer worker executes what an older API stored; unknown keys are
ignored, so that an older worker can read what a newer API stored.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Final, Self

from workers.vocabulary.staging import HIDDEN as HIDDEN

MIB: Final = 1024 * 1024

#: What is kept of one output stream of one attempt by default, in bytes (head + tail).
DEFAULT_LOG_HEAD: Final = 16 * MIB
DEFAULT_LOG_TAIL: Final = 48 * MIB

#: In a list of selectors: every container of the node but Gantry's own.
ALL_CONTAINERS: Final = "all"


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
        return {"kind": self.KIND, "version": self._needs(), **asdict(self)}

    def _needs(self) -> int:
        """The oldest version of a reader that executes this spec rightly."""
        return self.VERSION

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
class StagedSpec(Spec):
    """What commands and containers share: a working folder that is filled before and read after."""

    VERSION: ClassVar[int] = 2

    uris: list[str] = field(default_factory=list)
    uri_secrets: list[int] = field(default_factory=list)
    secret_ids: list[int] = field(default_factory=list)
    stores: list[dict[str, Any]] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    #: Keys of the tenant's policy that it needs beside those of its kind: asked again before it starts.
    policies: list[str] = field(default_factory=list)

    def _needs(self) -> int:
        # A worker of version 1 would run it without its inputs.
        return 2 if self.stores or self.inputs or self.outputs else 1


@dataclass(frozen=True, kw_only=True)
class ProcessSpec(StagedSpec):
    """A command that runs as a process of the node.

    ``argv`` is executed as it is (no shell unless argv says so). ``env`` is the whole environment beside
    PATH, HOME and TMPDIR. ``uris`` and ``inputs`` (``staging.Input``) are fetched into the working directory
    first; ``outputs`` (``staging.Output``) are stored when it ended with exit code 0. ``secret_ids`` are, in
    that order, user name and password of the uris at the places ``uri_secrets``, then the key of each of
    ``stores`` (``staging.Store``). ``mem_mb`` is MiB.
    """

    KIND: ClassVar[str] = "process"

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    log_head: int = DEFAULT_LOG_HEAD
    log_tail: int = DEFAULT_LOG_TAIL


@dataclass(frozen=True, kw_only=True)
class ContainerSpec(StagedSpec):
    """A container on the node's Docker Engine (tasks family, contract page 10).

    ``cpu_m`` is thousandths of a CPU, ``mem_mb`` MiB (memory and swap together). ``ports`` are
    {container_port, host_port, protocol}; ``volumes`` {container_path, host_path, mode}; ``parameters``
    {key, value}; uris, inputs, outputs and stores as in ``ProcessSpec``. Everything dangerous was checked
    against the tenant's policy at submission.
    """

    KIND: ClassVar[str] = "container"

    image: str
    args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
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


@dataclass(frozen=True, kw_only=True)
class ExecSpec(Spec):
    """A command that is executed inside a running container of the node (jobs family, contract page 20).

    ``container`` is a full id, a unique prefix or a name, as the client wrote it; the runtime looks it up
    when the run starts, among those that carry one of ``selectors`` (labels, ``name=value`` or ``name``;
    ``all`` = every one) and are not Gantry's own. One that is not among them is answered exactly as one that
    does not exist. ``argv`` are words, no shell is added; the secrets of ``secret_ids`` follow it as further
    arguments in that order, read by the worker into ``ClaimedRun.secrets``. ``user`` and ``working_dir`` are
    the container's own when empty; ``env`` is added to the container's. ``log_head`` and ``log_tail`` cap
    what is kept of the output in bytes; stdout and stderr are one stream, STDOUT, in the order in which they
    came. Facts that the runtime tells (``Attempt.facts``): exec_id, container_id (full), pid.
    An exec takes a slot of the node and no CPU or memory: those are the container's.
    """

    KIND: ClassVar[str] = "exec"

    cpu_m: int = 0
    mem_mb: int = 0
    container: str
    argv: list[str]
    selectors: list[str] = field(default_factory=list)
    user: str = ""
    env: dict[str, str] = field(default_factory=dict)
    privileged: bool = False
    working_dir: str = ""
    secret_ids: list[int] = field(default_factory=list)
    log_head: int = DEFAULT_LOG_HEAD
    log_tail: int = DEFAULT_LOG_TAIL


@dataclass(frozen=True, kw_only=True)
class TransferSpec(Spec):
    """A batch of file operations between sites (workqueue family, contract page 40).

    What is to be done is read from the family's book when it starts (``vocabulary.transfers.book``):
    ``batch`` is its number there. ``summary`` says it in words. Sites, credentials and elements stand in no
    spec.
    """

    KIND: ClassVar[str] = "transfer"

    cpu_m: int = 250
    mem_mb: int = 256
    batch: int
    summary: str = ""
    log_head: int = 1 * MIB
    log_tail: int = 1 * MIB
