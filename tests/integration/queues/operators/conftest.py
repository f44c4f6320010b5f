"""What these tests share: entries that wait, as if a client had sent them; pools as operators send them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from django.db.models import F

from queues import needs, order
from queues.models import Entry, Queue, WaitingClass
from tests.integration.conftest import Api
from tests.support.fixtures import Account, make_account

BASE = "/api/v1/queues"


def enqueue(tenant_id: int, kind: str, data: Mapping[str, Any], owner: str = "owner") -> Entry:
    """An entry at the end of its queue. Its callback is none that anybody could call."""
    need, bound = needs.need_of(kind, data), needs.bound_to(data)
    queue, _ = Queue.objects.get_or_create(tenant_id=tenant_id, type=kind)
    digest = needs.digest(owner, need, bound)
    found, _ = WaitingClass.objects.get_or_create(
        queue=queue, digest=digest, defaults={"owner_id": owner, "needs": need, "aggregate": bound}
    )
    WaitingClass.objects.filter(pk=found.pk).update(waiting=F("waiting") + 1)
    number = Entry.objects.count() + 1
    callback = f"nowhere-{number}"
    return Entry.objects.create(
        queue=queue,
        waiting_class=found,
        request_id=f"r{number}",
        owner_id=owner,
        data=json.dumps(data, sort_keys=True),
        callback=callback,
        callback_digest=hashlib.sha256(callback.encode()).hexdigest(),
        deliverable=False,
        priority=number,
        tie=order.ALONE,
    )


def vm(vcpu: float, count: int = 1, **more: Any) -> dict[str, Any]:
    """Data of a request for machines."""
    return {"instances": [{"VCPU": vcpu}] * count, **more}


def pool(aggregate: str, **hosts: float) -> dict[str, Any]:
    """A pool of hosts with so many VCPU each."""
    return {"aggregate": aggregate, "hosts": [{"name": name, "VCPU": vcpu} for name, vcpu in hosts.items()]}


@pytest.fixture
def reader(db: None) -> Account:
    """A user of the first tenant who may only read."""
    return make_account("default", scopes=("read",))


class Declared:
    """``declared("vm", "rack-1", h1=8)``: an operator's POST, which must succeed."""

    def __init__(self, api: Api, operator: Account) -> None:
        self.api, self.operator = api, operator

    def __call__(self, kind: str, aggregate: str, tenants: list[str] | None = None, **hosts: float) -> int:
        body = {**pool(aggregate, **hosts), "tenants": tenants}
        status, answer, _ = self.api(self.operator, "POST", f"{BASE}/{kind}/pools", body)
        assert status in (200, 201), answer
        return int(status)


@pytest.fixture
def declared(api: Api, operator: Account) -> Declared:
    return Declared(api, operator)
