"""Claimed runs that no database knows, for what is asked of them alone."""

from __future__ import annotations

from typing import Any

from workers.vocabulary.leases import ClaimedRun, Lease
from workers.vocabulary.specs import ProcessSpec


def claimed_run(run_id: int, command: str = "true", **facts: Any) -> ClaimedRun:
    """The first attempt of a shell command, as a worker has it in hand."""
    spec = ProcessSpec(argv=["/bin/sh", "-c", command], cpu_m=100, mem_mb=64)
    given: dict[str, Any] = {
        "tenant": "default",
        "tenant_id": 1,
        "family": "tasks",
        "kind": spec.KIND,
        "name": "test",
        "spec": spec.to_json(),
        "cpu_m": spec.cpu_m,
        "mem_mb": spec.mem_mb,
        "retries_left": 0,
        "timeout_s": None,
        "grace_s": 1,
        "never_lost": False,
        "cancel_requested": False,
        "operator_cancel": False,
        "started_ago": None,
        "crashes": 0,
        "adopted": False,
        **facts,
    }
    return ClaimedRun(lease=Lease(run_id, 1, 1), **given)
