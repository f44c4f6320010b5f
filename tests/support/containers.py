"""Short forms for tests of containers: submit one, find it in its engine, count what that did for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.support.engines import Engine
from tests.support.images import BUSYBOX
from tests.support.waiting import wait_until
from workers import services
from workers.models import Tenant
from workers.tenants import policy
from workers.vocabulary.specs import ContainerSpec

#: How the engine is told whose a container is.
RUN, NODE = "gantry.run", "gantry.node"


def submit_container(
    tenant_id: int,
    script: str,
    *,
    cpu: float = 0.1,
    mem_mb: int = 32,
    constraints: dict[str, list[str]] | None = None,
    share: Path | None = None,
    spec: dict[str, Any] | None = None,
    **more: Any,
) -> int:
    """Submit a script for the shell of an image as a run of the tasks family; returns its id.

    ``share`` is a folder that the container finds at the same path, to write a ledger; it opens the tenant's
    policy for volumes. ``spec`` adds fields
    of the ContainerSpec.
    """
    given: dict[str, Any] = {
        "image": BUSYBOX,
        "args": ["/bin/sh", "-c", script],
        "force_pull": False,
        "cpu_m": int(cpu * 1000),
        "mem_mb": mem_mb,
        **(spec or {}),
    }
    if share is not None:
        open_policy(tenant_id, "volumes")
        given["volumes"] = [{"container_path": str(share), "host_path": str(share), "mode": "RW"}]
    more.setdefault("name", "test")
    return services.submit(
        services.Submission(
            tenant_id=tenant_id,
            family="tasks",
            spec=ContainerSpec(**given),
            constraints=constraints or {},
            **more,
        )
    )


def open_policy(tenant_id: int, key: str) -> None:
    """As an operator would: folders and fixed ports of the host are closed to tenants."""
    tenant = Tenant.objects.get(pk=tenant_id)
    if tenant.policy.get(key) is not True:
        Tenant.objects.filter(pk=tenant_id).update(policy={**tenant.policy, key: True})
        policy.forget()


def containers_of(engine: Engine, run_id: int) -> list[dict[str, Any]]:
    """Every container of a run, in whatever state, as inspected."""
    return engine.containers(**{RUN: str(run_id)})


def container_of(engine: Engine, run_id: int, timeout_s: float = 60.0) -> dict[str, Any]:
    """The one container of a run; waits until it is there and runs, or has ended."""

    def there() -> dict[str, Any] | None:
        found = containers_of(engine, run_id)
        assert len(found) < 2, f"I2: {len(found)} containers of run {run_id}"
        return found[0] if found and found[0]["State"]["Status"] != "created" else None

    found: dict[str, Any] = wait_until(
        there,
        timeout_s,
        why=f"the container of run {run_id} is there",
        see=lambda: containers_of(engine, run_id),
    )
    return found


def happened(engine: Engine, run_id: int) -> dict[str, int]:
    """How often the engine did what for a run, by its own memory (256 events, gone when it restarts)."""
    counts: dict[str, int] = {}
    events = engine.client.api.events(
        since=0,
        until=int(time.time()) + 1,
        filters={"type": "container", "label": f"{RUN}={run_id}"},
        decode=True,
    )
    for event in events:
        counts[event["Action"]] = counts.get(event["Action"], 0) + 1
    return counts
