"""What the tests of the queues family share: two tenants, a client, and admission played by the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction

from queues import bodies, needs
from queues.admission import booking
from queues.admission.decide import Admission, Class
from queues.models import Aggregate, Entry, HostResource, WaitingClass
from queues.models import Host as HostRow
from tests.contracts.tasks import conftest as tasks
from workers.callbacks import outbox
from workers.tenants import identity

#: The seed's own request.
BODY: dict[str, Any] = {
    "request_id": "d",
    "owner_id": "y",
    "data": {"instances": [{"VCPU": 1, "Memory": 1, "Disk": 1}], "project": "project id"},
    "callback": "abc",
}
ELEVEN = (
    *("ID", "CreatedAt", "UpdatedAt", "DeletedAt", "RequestID", "Type", "OwnerID", "Data", "Callback"),
    *("Priority", "Status"),
)


class Api(tasks.Api):
    """A client with short forms for queues of vm."""

    def delete(self, path: str) -> Any:
        return self.send("DELETE", path)

    def create(self, request_id: str, kind: str = "vm", **fields: Any) -> dict[str, Any]:
        """Queue a request with a callback of its own; returns the entry."""
        sent = {**BODY, "request_id": request_id, "callback": f"http://r.example/{request_id}", **fields}
        found: dict[str, Any] = data(self.post(f"/v1/{kind}/", sent))
        return found

    def entry(self, request_id: str) -> dict[str, Any]:
        found: dict[str, Any] = data(self.get(f"/v1/vm/{request_id}/"))
        return found

    def ids(self, query: str = "", kind: str = "vm") -> list[str]:
        """The request_ids of a list."""
        return [entry["RequestID"] for entry in data(self.get(f"/v1/{kind}/{query}"))]

    def move(self, request_id: str, status: int = 200, **to: Any) -> Any:
        answer = self.post(f"/v1/vm/{request_id}", to)
        assert answer.status_code == status, answer.content
        return answer


def body(answer: Any) -> Any:
    """The JSON of an answer, streamed or not."""
    return json.loads(answer.getvalue() if answer.streaming else answer.content)


def data(answer: Any, status: int = 200) -> Any:
    """What a good answer holds; nothing but it and ``ok`` may be there."""
    assert answer.status_code == status, answer.getvalue()
    assert answer.headers["Content-Type"] == "application/json"
    found = body(answer)
    assert set(found) == {"data", "ok"}
    assert found["ok"] is True
    return found["data"]


def error(answer: Any, status: int) -> tuple[str, str]:
    """(id, message) of an error answer; nothing else may be in it."""
    assert answer.status_code == status, answer.getvalue()
    assert answer.headers["Content-Type"] == "application/json"
    found = body(answer)
    assert set(found) == {"ok", "error"}
    assert found["ok"] is False
    assert set(found["error"]) == {"id", "message"}
    assert found["error"]["id"]
    assert found["error"]["message"]
    return found["error"]["id"], found["error"]["message"]


def member(tenant: str, user: str, *scopes: str) -> Api:
    """A client with a new user's token for a tenant, which is made when it is not there."""
    made = tasks.member(tenant, user, *scopes)
    return Api(made.tenant, made.token)


def host(kind: str = "vm", amount: int = 1000) -> HostRow:
    """A host of the aggregate host1 with so much of each resource of a vm."""
    aggregate, _ = Aggregate.objects.get_or_create(type=kind, name="host1")
    row, _ = HostRow.objects.get_or_create(aggregate=aggregate, name="n1")
    for name in needs.VM:
        HostResource.objects.get_or_create(
            host=row, name=name, defaults={"total": amount * needs.UNIT, "largest": amount * needs.UNIT}
        )
    return row


def admit(request_id: str, *, callback: str = "due", **fields: Any) -> Entry:
    """Admit a queued vm as admission does: booked, running, its callback owed (in that state)."""
    entry = Entry.objects.select_related("queue", "waiting_class").get(request_id=request_id)
    place, cls = host(), entry.waiting_class
    need = booking.need_from(json.dumps(cls.needs))
    shown = json.loads(entry.data) | {"host_aggregate": "host1"}
    with transaction.atomic(), connection.cursor() as cursor:
        Entry.objects.filter(pk=entry.pk).update(
            status="running",
            aggregate="host1",
            data=bodies.data_text(shown),
            **{"admitted_at": now(), **fields},
        )
        WaitingClass.objects.filter(pk=cls.pk).update(waiting=cls.waiting - 1)
        decided = Class(
            cls.pk, cls.queue_id, entry.queue.tenant_id, cls.owner_id, need, cls.aggregate, (), cls.waiting
        )
        places = tuple((place.pk, count, size) for count, size in need)
        booking.take(cursor, [Admission(entry=entry.pk, cls=decided, aggregate="host1", places=places)])
        if entry.deliverable:
            owe(cursor, entry, shown)
            cursor.execute(
                "UPDATE workers_callback SET state = %s, next_at = NULL WHERE owner_id = %s",
                [callback, str(entry.pk)],
            )
    entry.refresh_from_db()
    return entry


def owe(cursor: Any, entry: Entry, shown: dict[str, Any]) -> None:
    """The callback of an admission."""
    text = json.dumps(
        bodies.callback_body(
            request_id=entry.request_id, kind="vm", owner_id=entry.owner_id, data=shown, sequence=1
        )
    )
    to = (entry.callback, outbox.receiver(entry.callback), text, False)
    owner = (entry.queue.tenant_id, "queues", "entry", str(entry.pk), None, 1)
    outbox.insert(cursor, [(*owner, "running", outbox.message_id(), *to)])


def now() -> Any:
    """The database's time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


def held() -> dict[str, int]:
    """What is booked of each resource, in the unit that clients use."""
    return {row.name: row.held // needs.UNIT for row in HostResource.objects.all()}


@pytest.fixture
def api(db: None) -> Iterator[Api]:
    """A member of the tenant 10002, with the scopes read and submit."""
    identity.forget()
    yield member("10002", "ann")
    identity.forget()


@pytest.fixture
def stranger(api: Api) -> Api:
    """A member of another tenant."""
    return member("10003", "bob")
