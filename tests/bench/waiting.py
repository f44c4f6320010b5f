"""Mark 11: queues with 100,000 waiting against the same with 100: create, move, read, explain, admit.

50 owners, four sizes. Calls go over HTTP, one after the other, the two queues in turn; a look that admits one
entry is timed in this process, and so is a look that admits thousands.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from django.db import connection

from queues import needs, pools
from queues.admission.look import look
from queues.entries import services
from queues.models import Entry, Queue, WaitingClass
from tests.bench.rig import Client
from workers.models import Tenant

OWNERS, SIZES = 50, (1, 2, 4, 8)
_FILL = """
    INSERT INTO queues_entry (queue_id, waiting_class_id, request_id, owner_id, data, callback,
        callback_digest, deliverable, priority, tie)
    SELECT %(queue)s, c.id, 'w' || i, c.owner_id, '{"VCPU":1}', 'urn:' || i,
        encode(sha256(i::text::bytea), 'hex'), false, 1600000000000000 + i, 'V'
    FROM generate_series(1, %(count)s) i
    JOIN LATERAL (SELECT id, owner_id FROM queues_waitingclass
        WHERE id = (%(classes)s::bigint[])[1 + i %% %(kinds)s]) c ON true
"""
_COUNT = """
    UPDATE queues_waitingclass c SET waiting =
        (SELECT count(*) FROM queues_entry e WHERE e.waiting_class_id = c.id AND e.status = 'queued')
    WHERE c.queue_id = %s
"""


def run(ours: str, *, long: bool) -> None:
    """Fill two queues, measure both, print ratios."""
    tenant = Tenant.objects.order_by("id").first()
    if tenant is None:
        raise SystemExit("there is no tenant")
    few = _filled(tenant, "few", 100)
    many = _filled(tenant, "many", 100_000)
    client, rounds = Client(ours), 1000 if long else 200
    calls: dict[str, Callable[[str, int], None]] = {
        "create": lambda kind, number: _post(client, f"/v1/{kind}/", _body(f"n{number}")),
        "move": lambda kind, number: _post(client, f"/v1/{kind}/w{50 + number % 50}", {"priority": number}),
        "read": lambda kind, number: client.call("GET", f"/v1/{kind}/w{1 + number % 100}/"),
        "explain": lambda kind, number: client.call("GET", f"/v1/{kind}/w{50 + number % 50}/explain"),
    }
    for name, call in calls.items():
        _compare(name, few, many, rounds, call)
    _compare("admit one", few, many, rounds, lambda kind, _: _one_more(kind, tenant.pk))
    _all_at_once(2000)


def _body(request_id: str) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "owner_id": "o1",
        "callback": f"urn:{request_id}",
        "data": {"VCPU": 4},
    }


def _post(client: Client, path: str, body: object) -> None:
    client.call("POST", path, body)


def _filled(tenant: Tenant, kind: str, count: int) -> str:
    """A queue of which so many wait and one VCPU after the other becomes free."""
    queue = Queue.objects.create(tenant=tenant, type=kind, highest=1_600_000_000_000_000 + count)
    classes = []
    for owner in range(OWNERS):
        for size in SIZES:
            need = needs.need_of(kind, {"VCPU": size})
            made = WaitingClass.objects.create(
                queue=queue,
                owner_id=f"o{owner}",
                needs=need,
                digest=needs.digest(f"o{owner}", need, ""),
            )
            classes.append(made.pk)
    with connection.cursor() as cursor:
        cursor.execute(_FILL, {"queue": queue.pk, "count": count, "classes": classes, "kinds": len(classes)})
        cursor.execute(_COUNT, [queue.pk])
        cursor.execute("ANALYZE queues_entry")
        cursor.execute("ANALYZE queues_waitingclass")
    for name in "abc":
        pools.declare(kind, name, [pools.HostAmounts(f"{name}{n}", {"VCPU": 16_000}, {}) for n in range(2)])
    while look(kind):
        pass
    return kind


def _one_more(kind: str, tenant_id: int) -> None:
    """One ends (not timed by itself: both queues do it), and a look admits what comes next."""
    entry = Entry.objects.filter(queue__type=kind, status="running").order_by("admitted_at").first()
    if entry is not None:
        services.end(tenant_id, kind, entry.request_id)
    look(kind)


def _compare(name: str, few: str, many: str, rounds: int, call: Callable[[str, int], None]) -> None:
    taken: dict[str, list[float]] = {few: [], many: []}
    for number in range(rounds):
        for kind in (few, many) if number % 2 else (many, few):
            began = time.perf_counter()
            call(kind, number)
            taken[kind].append((time.perf_counter() - began) * 1000)
    for values in taken.values():
        values.sort()
    late = {kind: values[int(len(values) * 0.99) - 1] for kind, values in taken.items()}
    middle = {kind: values[len(values) // 2] for kind, values in taken.items()}
    ratio = late[many] / late[few]
    print(
        f"  11 {name}: p50 {middle[many]:.1f} ms, p99 {late[many]:.1f} ms with 100,000 waiting; "
        f"{middle[few]:.1f} and {late[few]:.1f} ms with 100; p99 ratio {ratio:.2f}; mark 2 "
        f"{'reached' if ratio <= 2 else 'MISSED'}"
    )
    sys.stdout.flush()


def _all_at_once(count: int) -> None:
    """Capacity for thousands appears: admissions a second."""
    pools.declare(
        "many", "new", [pools.HostAmounts(f"n{n}", {"VCPU": 64_000}, {}) for n in range(count // 16)]
    )
    began, admitted = time.perf_counter(), 0
    while found := look("many"):
        admitted += found
    rate = admitted / (time.perf_counter() - began)
    print(f"  11 admit: {rate:.0f} admissions/s ({admitted} at once); mark 500 {_verdict(rate >= 500)}")


def _verdict(reached: bool) -> str:
    return "reached" if reached else "MISSED"
