"""A runtime on a node's folder, and claimed runs for it, as a worker has them: no database, no pytest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from workers.runtimes.base import Runtime
from workers.runtimes.container.runtime import ContainerRuntime
from workers.runtimes.engine.client import Address, Engine
from workers.runtimes.exec.runtime import ExecRuntime
from workers.runtimes.process.runtime import ProcessRuntime
from workers.runtimes.transfer.runtime import TransferRuntime
from workers.vocabulary.leases import ClaimedRun, Lease

#: The installation and the node that a test's containers are labelled with.
INSTALLATION, NODE = "conformance", "n1"


#: In the mover's place, so that a transfer can be whatever these tests need.
SCRIPTED = (sys.executable, str(Path(__file__).with_name("scripted.py")))


def make_runtime(kind: str, folder: Path, engine: str = "") -> Runtime:
    """``engine`` is the DOCKER_HOST of a container or exec runtime."""
    if kind == "process":
        return ProcessRuntime(folder)
    if kind == "transfer":
        return TransferRuntime(folder, SCRIPTED)
    if kind == "exec":
        return ExecRuntime(folder, Engine(Address.parse(engine)), INSTALLATION, NODE)
    return ContainerRuntime(folder, Engine(Address.parse(engine)), INSTALLATION, NODE, b"key")


def claimed(kind: str, run_id: int, spec: dict[str, Any], orders: dict[str, Any] | None = None) -> ClaimedRun:
    """A run that was just claimed: attempt 1, never started. ``orders`` of a transfer."""
    return ClaimedRun(
        lease=Lease(run_id, 1, 1),
        tenant="t",
        tenant_id=1,
        family="tasks",
        kind=kind,
        name="conformance",
        spec=spec,
        cpu_m=spec["cpu_m"],
        mem_mb=spec["mem_mb"],
        retries_left=0,
        timeout_s=None,
        grace_s=1,
        never_lost=False,
        cancel_requested=False,
        operator_cancel=False,
        started_ago=None,
        crashes=0,
        adopted=False,
        orders=orders,
    )
