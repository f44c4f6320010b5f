"""A queue of a type whose capacity an external provider tells."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models import F, Sum
from django.utils import timezone

from queues import bodies, needs, order
from queues.admission import booking
from queues.admission.look import look
from queues.admission.settle import settle
from queues.entries.explain import explain
from queues.models import Entry, HostResource, Queue, TypePolicy, WaitingClass
from tests.support.capacity import Subject
from workers.models import Callback, Tenant


class Line:
    """Those who wait for a subject's capacity; times pass by being written."""

    def __init__(self, subject: Subject) -> None:
        self.kind = subject.kind
        self._cpu, self._provider = subject.cpu, subject.provider
        self.tenant = Tenant.objects.get_or_create(name="default")[0]
        self._queue = Queue.objects.create(tenant=self.tenant, type=self.kind)

    def submit(self, request_id: str, *cpus: int) -> int:
        """A request of instances of these sizes, at the end; returns its id."""
        name = "instances" if self.kind == "vm" else "pods"
        data = {name: [{self._cpu: cpu} for cpu in cpus]}
        need = needs.asked_of(self._provider, needs.need_of(self.kind, data))
        cls, _ = WaitingClass.objects.get_or_create(
            queue=self._queue,
            digest=needs.digest("x", need, ""),
            defaults={"owner_id": "x", "needs": need, "aggregate": ""},
        )
        WaitingClass.objects.filter(pk=cls.pk).update(waiting=F("waiting") + 1)
        self._queue.highest += 1
        self._queue.save()
        made = Entry.objects.create(
            queue=self._queue,
            waiting_class=cls,
            request_id=request_id,
            owner_id="x",
            data=bodies.data_text(data),
            callback=f"http://receiver.example/{request_id}",
            callback_digest=request_id,
            deliverable=True,
            priority=self._queue.highest,
            tie=order.ALONE,
        )
        return made.pk

    def look(self) -> int:
        return look(self.kind)

    def running(self) -> list[str]:
        found = Entry.objects.filter(status="running").order_by("admitted_at", "id")
        return [entry.request_id for entry in found]

    def told(self, *entries: int) -> None:
        """The receivers of these have accepted their callbacks just now."""
        owners = [str(entry) for entry in entries]
        Callback.objects.filter(owner_kind="entry", owner_id__in=owners).update(
            state="delivered", delivered_at=timezone.now(), next_at=None
        )
        assert settle()["told"] == len(entries)

    def hold_ends(self, entry: int) -> None:
        """GANTRY_QUEUE_HANDOVER_S have passed."""
        Entry.objects.filter(pk=entry).update(hold_ends_at=timezone.now())

    def finish(self, entry: int) -> None:
        """Its client ends it, as DELETE does."""
        with transaction.atomic(), connection.cursor() as cursor:
            ended = Entry.objects.filter(pk=entry, status="running").update(
                status="finished", ended_at=timezone.now()
            )
            assert ended == 1
            booking.give_back(cursor, [entry])

    def held(self) -> float:
        """What is booked of all hosts."""
        found = HostResource.objects.filter(name=self._cpu).aggregate(sum=Sum("held"))["sum"]
        return float(found or 0) / needs.UNIT

    def silent_for(self, seconds: float) -> None:
        """The provider has said nothing for so long."""
        TypePolicy.objects.filter(type=self.kind).update(heard_at=timezone.now() - timedelta(seconds=seconds))

    def why(self, request_id: str) -> tuple[str, str]:
        """(Level, the first reason's message) of the explanation."""
        first, *_ = explain(self.tenant.pk, self.kind, request_id)["reasons"]
        return first["level"], first["message"]


@pytest.fixture
def line(subject: Subject) -> Line:
    """A queue of the subject's type, empty."""
    return Line(subject)
