"""What the tests of admission share: pools and entries of type vm, as operators and clients make them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connection

from queues import pools
from queues.entries import services, wire
from queues.models import Entry
from tests.support.waiting import limit
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


def at_once(count: int, work: Callable[[int], object]) -> None:
    """``work(0)``, ``work(1)`` ... in so many threads that begin together; their errors are the test's."""
    errors: list[BaseException] = []
    ready = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            ready.wait(limit(60))
            work(number)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit(900))
        assert not thread.is_alive()
    if errors:
        raise errors[0]
