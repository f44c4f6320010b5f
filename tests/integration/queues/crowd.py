"""Clients, operators and admission loops at once, each a thread, doing at random what they may do."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from django.db import connection

from queues import pools
from queues.admission.look import look_at_all
from queues.admission.settle import settle
from queues.entries import moving, rows, services, wire
from tests.integration.queues import journal
from tests.integration.queues.scene import KIND, at_once
from tests.support import seeds
from tests.support.waiting import limit
from workers.models import Callback
from workers.vocabulary.errors import Conflict, InvalidInput, NotFound

AGGREGATES = ("a", "b", "c")
OWNERS = ("x", "y", "z")
#: VCPU and Memory of one instance.
SIZES = ((1, 0), (2, 0), (1, 1), (2, 4), (3, 1))
#: Of each tenant: so that there are fewer classes than a look sees.
MOST_WAITING = 40


class Loops:
    """Admission loops, as two workers have them: each looks when it is woken, and once at the end.

    ``around``: a context that each thread is in.
    """

    def __init__(self, around: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext) -> None:
        self._around = around
        self._ended = threading.Event()
        self._woken = [threading.Event() for _ in range(2)]
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(woken,)) for woken in self._woken]

    def __enter__(self) -> Loops:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.wake()
        for thread in self._threads:
            thread.join(limit(120))
            assert not thread.is_alive()
        if self._errors:
            raise self._errors[0]

    def wake(self) -> None:
        for woken in self._woken:
            woken.set()

    def _run(self, woken: threading.Event) -> None:
        try:
            with self._around():
                last = False
                while not last:
                    woken.wait(limit(60))
                    woken.clear()
                    last = self._ended.is_set()
                    settle()
                    look_at_all()
        except BaseException as error:
            self._errors.append(error)
        finally:
            connection.close()


class Crowd:
    """``count`` operations by ``clients`` threads beside two admission loops; then everybody is still."""

    def __init__(self, tenants: dict[int, str], count: int, clients: int = 8) -> None:
        self.tenants = tenants
        self.count, self.clients = count, clients
        #: (tenant, request_id) of what was accepted.
        self.accepted: list[tuple[int, str]] = []
        self.refused: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.looks: list[int] = []

    def run(self) -> None:
        with Loops(self._noted) as loops:

            def act(number: int) -> None:
                client = _Client(self, number, seeds.dice(f"queues {number}"))
                for _ in range(self.count // self.clients):
                    self.done[client.act()] += 1
                    loops.wake()

            at_once(self.clients, act)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        journal.calls(op="loop")
        with connection.execute_wrapper(journal.note_looks(lambda: self.looks.append(1))):
            yield


class _Client:
    """One thread's dice and what they decide."""

    def __init__(self, crowd: Crowd, number: int, dice: random.Random) -> None:
        self.crowd, self.number, self.dice = crowd, number, dice
        self.made = 0

    def act(self) -> str:
        (what,) = self.dice.choices(
            (self.submit, self.end, self.move, self.quota, self.declare, self.remove, self.answer),
            (36, 28, 18, 5, 5, 2, 6),
        )
        try:
            what()
        except (Conflict, NotFound) as refusal:
            self.crowd.refused[f"{what.__name__} {type(refusal).__name__}"] += 1
        except InvalidInput as refusal:
            raise AssertionError(f"{what.__name__} was invalid") from refusal
        return what.__name__

    def submit(self) -> None:
        tenant, owner = self._tenant(), self.dice.choice(OWNERS)
        if len(waiting := self._any("queued", tenant)) == MOST_WAITING:
            journal.calls(op="end", request=(other := self.dice.choice(waiting)[1]))
            services.end(tenant, KIND, other)
        request, self.made = f"c{self.number}-{self.made}", self.made + 1
        sizes = [self.dice.choice(SIZES)] * self.dice.choice((1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8))
        if self.dice.random() < 0.15:
            sizes[0] = self.dice.choice(SIZES)
        bound = self.dice.choice(("", "", "", "", *AGGREGATES)) if self.dice.random() < 0.97 else "nowhere"
        journal.calls(op="submit", owner=owner, request=request, sizes=sizes, bound=bound)
        body = {
            "request_id": request,
            "owner_id": owner,
            "callback": f"http://receiver.example/{tenant}/{request}",
            "data": {
                "instances": [{"VCPU": vcpu, "Memory": memory} for vcpu, memory in sizes],
                **({"host_aggregate": bound} if bound else {}),
            },
        }
        services.create(tenant, KIND, wire.parse_entry(KIND, body))
        self.crowd.accepted.append((tenant, request))

    def end(self) -> None:
        tenant = self._tenant()
        found = self._any("running", tenant) if self.dice.random() < 0.75 else []
        if found := found or self._any("queued", tenant):
            tenant, request, _ = self.dice.choice(found)
            journal.calls(op="end", request=request)
            services.end(tenant, KIND, request)

    def move(self) -> None:
        if len(found := self._any("queued", self._tenant())) < 2:
            return
        (tenant, request, _), (_, other, number) = self.dice.sample(found, 2)
        wanted: dict[str, Any] = {self.dice.choice(("before", "after")): other}
        if self.dice.random() < 0.5:
            numbers = sorted(each[2] for each in found)
            between = (number + self.dice.choice(numbers)) // 2
            wanted = {"priority": self.dice.choice((numbers[0] - 1, numbers[-1] + 1, number, between))}
        journal.calls(op="move", request=request, **wanted)
        moving.move(tenant, KIND, request, wire.MoveRequest(**wanted))

    def quota(self) -> None:
        """As an operator's call does it: under the lock of the type and of the queue."""
        tenant, owner = self._tenant(), self.dice.choice(OWNERS)
        resource, amount = (
            self.dice.choice(("VCPU", "Memory")),
            self.dice.choice((0, 4000, 12000, None, None)),
        )
        journal.calls(op="quota")
        set_quota(tenant, owner, resource, amount)

    def declare(self) -> None:
        name = self.dice.choice(AGGREGATES)
        hosts = {
            f"h{number}": {
                "VCPU": self.dice.choice((2, 4, 8)) * 1000,
                "Memory": self.dice.choice((0, 4, 8)) * 1000,
            }
            for number in self.dice.sample(range(3), self.dice.choice((1, 2, 3)))
        }
        tenants = self.dice.sample(sorted(self.crowd.tenants), self.dice.choice((0, 0, 1, 2)))
        declare(name, hosts, {tenant: self.crowd.tenants[tenant] for tenant in tenants})

    def remove(self) -> None:
        name = self.dice.choice(AGGREGATES)
        journal.calls(op="remove", aggregate=name)
        pools.remove(KIND, name)

    def answer(self) -> None:
        """As a deliverer does it: a callback is accepted, or given up."""
        if found := self._any("running", self._tenant()):
            tenant, request, _ = self.dice.choice(found)
            state = self.dice.choice(("delivered", "delivered", "dead"))
            journal.calls(op="answer")
            Callback.objects.filter(url=f"http://receiver.example/{tenant}/{request}", state="due").update(
                state=state, next_at=None
            )

    def _tenant(self) -> int:
        return self.dice.choice(sorted(self.crowd.tenants))

    def _any(self, status: str, tenant: int) -> list[tuple[int, str, int]]:
        with connection.cursor() as cursor:
            cursor.execute(
                """SELECT q.tenant_id, e.request_id, e.priority
                   FROM queues_entry e JOIN queues_queue q ON q.id = e.queue_id
                   WHERE e.status = %s AND q.tenant_id = %s ORDER BY e.priority, e.tie LIMIT %s""",
                [status, tenant, MOST_WAITING],
            )
            return list(cursor.fetchall())


def declare(name: str, hosts: dict[str, dict[str, int]], tenants: dict[int, str]) -> None:
    """``hosts``: thousandths; ``tenants``: id -> name, none = all."""
    journal.calls(op="declare", aggregate=name, hosts=hosts, tenants=sorted(tenants))
    pools.declare(
        KIND,
        name,
        [pools.HostAmounts(host, amounts, {}) for host, amounts in hosts.items()],
        tenants.values(),
    )


def set_quota(tenant: int, owner: str, resource: str, amount: int | None) -> None:
    with contextlib.suppress(NotFound), rows.changing(KIND) as cursor:
        queue = rows.lock(cursor, tenant, KIND, "")
        cursor.execute(
            """INSERT INTO queues_ownerholding (queue_id, owner_id, resource, quota) VALUES (%s, %s, %s, %s)
               ON CONFLICT (queue_id, owner_id, resource) DO UPDATE SET quota = excluded.quota""",
            [queue, owner, resource, amount],
        )
