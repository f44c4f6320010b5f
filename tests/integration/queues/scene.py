"""What the tests of admission share: pools and entries of type vm, as operators and clients make them."""

from __future__ import annotations

from typing import Any

from queues import pools
from queues.entries import services, wire
from queues.models import Entry
from workers.models import Tenant

KIND = "vm"


def pool(name: str, *hosts: float, kind: str = KIND, tenants: tuple[str, ...] = ()) -> None:
    """An aggregate with a host of so many VCPU each."""
    pools.declare(
        kind,
        name,
        [
            pools.HostAmounts(f"{name}-{number}", {"VCPU": int(vcpu * 1000)}, {})
            for number, vcpu in enumerate(hosts)
        ],
        tenants,
    )


def entry(
    tenant: Tenant, request_id: str, *vcpus: float, owner: str = "x", callback: str = "", **data: Any
) -> int:
    """Submit an entry of instances with so many VCPU each; returns its id."""
    body = {
        "request_id": request_id,
        "owner_id": owner,
        "data": {"instances": [{"VCPU": vcpu} for vcpu in vcpus], **data},
        "callback": callback or f"http://receiver.example/{tenant.pk}/{request_id}",
    }
    return services.create(tenant.pk, KIND, wire.parse_entry(KIND, body)).id


def running() -> list[str]:
    """The running ones in the order of their admission."""
    found = Entry.objects.filter(status="running").order_by("admitted_at", "id")
    return [each.request_id for each in found]
