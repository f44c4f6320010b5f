"""A journal replayed with a plain-Python model: lists of entries, dicts of capacity, no classes, no keys.

The model does what each call asks for by the contract, in the order of commits, and what is in the database
after each commit must be the same. Which entries a look admits is told by tests.unit.queues.model.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from queues.admission.decide import MOST
from queues.admission.terms import Admission, Aggregate, Class, Head, Host, Reservation, Snapshot
from tests.integration.queues.journal import LOOK, Row
from tests.integration.queues.known import Amounts, Known, Pool, between, places, size_of
from tests.unit.queues.model import Model


class Replay:
    """``queues``: id -> tenant; ``hosts``: (aggregate, host) -> id; ``resources``: id -> (host id, name)."""

    def __init__(
        self,
        strict: bool,
        queues: dict[int, int],
        hosts: dict[tuple[str, str], int],
        resources: dict[int, tuple[int, str]],
    ) -> None:
        self.strict, self.queues, self.hosts, self.resources = strict, queues, hosts, resources
        self.entries: dict[int, Known] = {}
        self.ids: dict[tuple[int, str], int] = {}
        self.lines: dict[int, list[Known]] = {queue: [] for queue in queues}
        self.highest: dict[int, int] = dict.fromkeys(queues, 0)
        self.pools: dict[str, Pool] = {}
        #: Resource -> (total, largest), as they were last written.
        self.amounts: dict[int, tuple[int, int]] = {}
        self.quotas: dict[tuple[int, str], Amounts] = defaultdict(dict)
        self.callbacks: dict[int, str] = {}
        #: Entries as the database has them.
        self.rows: dict[int, dict[str, Any]] = {}
        self.holdings: dict[tuple[int, str, str], int] = defaultdict(int)
        self.still = False
        self.counts: Counter[str] = Counter()

    def commit(self, rows: list[Row]) -> None:
        """What one transaction did must be what its call does to the model."""
        looked = any(row.what == LOOK for row in rows)
        for row in rows:
            self._see(row)
        changed = _by_table(rows)
        if looked:
            self._look(changed)
            self.counts["looks"] += 1
        else:
            call = rows[0].call
            getattr(self, f"_{call['op']}")(call, changed)
            self.still = False
            self.counts[call["op"]] += 1
        self._compare(changed)

    def _see(self, row: Row) -> None:
        there = row.new
        if row.what == "queues_entry" and there is not None:
            self.rows[there["id"]] = there
        elif row.what == "queues_ownerholding" and there is not None:
            owner = there["queue_id"], there["owner_id"]
            self.holdings[(*owner, there["resource"])] = there["held"]
            self.quotas[owner].pop(there["resource"], None)
            if there["quota"] is not None:
                self.quotas[owner][there["resource"]] = there["quota"]
        elif row.what == "workers_callback" and there is not None:
            owed = int(there["owner_id"])
            assert (row.old is None) == (owed not in self.callbacks), f"two callbacks of {owed}"
            self.callbacks[owed] = there["state"]

    # --- calls ----------------------------------------------------------------------------------------------

    def _submit(self, call: dict[str, Any], changed: dict[str, list[Row]]) -> None:
        (new,) = (row.new or {} for row in changed["queues_entry"])
        sizes = Counter(size_of(*size) for size in call["sizes"])
        made = Known(
            *(new["id"], new["queue_id"], call["owner"], call["request"]),
            *(tuple((count, size) for size, count in sorted(sizes.items())), call["bound"]),
            *(new["priority"], datetime.fromisoformat(new["created_at"]).timestamp()),
        )
        assert made.number > self.highest[made.queue]
        self.highest[made.queue] = made.number
        self.lines[made.queue].append(made)
        self.entries[made.id] = made
        self.ids[made.queue, made.request] = made.id

    def _move(self, call: dict[str, Any], changed: dict[str, list[Row]]) -> None:
        queue = (changed["queues_entry"][0].new or {})["queue_id"]
        line, entry = self.lines[queue], self.entries[self.ids[queue, call["request"]]]
        line.remove(entry)
        if "priority" in call:
            entry.number = call["priority"]
            line.insert(sum(each.number <= entry.number for each in line), entry)
        else:
            other = self.entries[self.ids[queue, call.get("before") or call["after"]]]
            at = line.index(other) + ("after" in call)
            entry.number = between(line[at - 1].number if at else None, [each.number for each in line[at:]])
            line.insert(at, entry)
        self.highest[queue] = max(self.highest[queue], entry.number)

    def _end(self, call: dict[str, Any], changed: dict[str, list[Row]]) -> None:
        new = changed["queues_entry"][0].new or {}
        entry = self.entries[self.ids[new["queue_id"], call["request"]]]
        assert entry.id == new["id"]
        if entry.status == "queued":
            self.lines[entry.queue].remove(entry)
            entry.status = "cancelled"
            assert not changed["queues_booking"]
        else:
            self._given_back(entry, "finished", changed)

    def _loop(self, _: dict[str, Any], changed: dict[str, list[Row]]) -> None:
        """Settled: some were told, or one was given up."""
        for row in changed["queues_entry"]:
            new = row.new or {}
            entry = self.entries[new["id"]]
            if new["status"] == "running":
                assert self.callbacks[entry.id] == "delivered"
                assert new["told_at"]
            else:
                assert self.callbacks[entry.id] == "dead"
                self._given_back(entry, "failed", changed)
                self.counts["failed"] += 1

    def _quota(self, _: dict[str, Any], changed: dict[str, list[Row]]) -> None:
        assert set(changed) == {"queues_ownerholding"}

    def _answer(self, _: dict[str, Any], changed: dict[str, list[Row]]) -> None:
        assert set(changed) == {"workers_callback"}

    def _declare(self, call: dict[str, Any], changed: dict[str, list[Row]]) -> None:
        pool = self.pools.setdefault(call["aggregate"], Pool())
        pool.become(call["hosts"])
        pool.tenants = frozenset(call["tenants"]) or None
        self._totals(pool, call["aggregate"], changed)

    def _remove(self, call: dict[str, Any], changed: dict[str, list[Row]]) -> None:
        pool = self.pools[call["aggregate"]]
        pool.become({})
        self._totals(pool, call["aggregate"], changed)

    def _totals(self, pool: Pool, name: str, changed: dict[str, list[Row]]) -> None:
        there = {self.hosts[name, host]: (pool.total[host], pool.largest[host]) for host in pool.total}
        for row in changed.get("queues_hostresource", []):  # those that differ from before
            new = row.new or {}
            self.amounts[new["id"]] = (new["total"], new["largest"])
        known = {self.resources[id_]: amounts for id_, amounts in self.amounts.items()}
        assert {key: known[key] for key in known if key[0] in there} == {
            (id_, resource): (total[resource], largest[resource])
            for id_, (total, largest) in there.items()
            for resource in total
        }

    def _given_back(self, entry: Known, status: str, changed: dict[str, list[Row]]) -> None:
        assert entry.status == "running"
        gone = [row.old or {} for row in changed["queues_booking"]]
        assert {row["entry_id"] for row in gone} == {entry.id}
        assert self._booked(gone) == entry.booked
        entry.status, entry.booked = status, {}

    # --- a look ---------------------------------------------------------------------------------------------

    def _look(self, changed: dict[str, list[Row]]) -> None:
        admitted = sorted(
            (row.new or {} for row in changed["queues_entry"] if _began(row)),
            key=lambda new: new["admitted_at"],
        )
        assert not (self.still and admitted)
        if self.still:
            return
        model = Model(self._snapshot(), self._reserved())
        bookings: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in changed["queues_booking"]:
            bookings[(row.new or {})["entry_id"]].append(row.new or {})
        assert sorted(bookings) == sorted(new["id"] for new in admitted)
        owed = [row.new or {} for row in changed["workers_callback"]]
        assert sorted(int(new["owner_id"]) for new in owed) == sorted(bookings)
        for new in admitted:
            self._admitted(model, new, self._booked(bookings[new["id"]]))
        for new in owed:
            told, entry = json.loads(new["body"]), self.rows[int(new["owner_id"])]
            assert (new["sequence"], told["request_id"]) == (1, entry["request_id"])
            assert told["data"]["host_aggregate"] == entry["aggregate"]
        self.still = model.next() is None
        if self.still:
            kept = self._reserved()
            assert (kept and (kept.entry, kept.aggregate)) == (
                (model.kept[0].id, model.kept[1]) if model.kept else None
            )
        else:  # only a look that went as far as one goes may leave the rest to the next one
            self.counts["cut looks"] += 1
            most = max(Counter(self.rows[new["id"]]["waiting_class_id"] for new in admitted).values())
            assert most >= 4 or len(admitted) == MOST

    def _admitted(self, model: Model, new: dict[str, Any], booked: dict[int, Amounts]) -> None:
        expected = model.next()
        assert expected is not None, f"{new['request_id']} was admitted, the model admits nobody"
        one, where = expected
        entry = self.entries[new["id"]]
        wanted = self.entries[one.id].request
        assert one.id == entry.id, f"{entry.request} was admitted, it was the turn of {wanted}: {where}"
        assert new["aggregate"] in where
        given = places(entry.need, booked)
        assert given is not None, f"{booked} is not {entry.need}"
        model.admit(one, Admission(entry.id, one.cls, new["aggregate"], given))
        self.lines[entry.queue].remove(entry)
        entry.status, entry.booked = "running", booked
        self.counts["admitted"] += 1

    def _snapshot(self) -> Snapshot:
        held, shares = self._held()
        used: dict[int, Counter[str]] = defaultdict(Counter)
        for entry in self._running():
            for id_, amounts in entry.booked.items():
                used[id_].update(amounts)
        aggregates = []
        for name, pool in sorted(self.pools.items()):
            hosts = []
            for host, total in sorted(pool.total.items()):
                here = self.hosts[name, host]
                free = {each: amount - used[here][each] for each, amount in total.items()}
                hosts.append(Host(here, host, free, dict(total), dict(pool.largest[host])))
            aggregates.append(Aggregate(name, tuple(hosts), pool.tenants))
        return Snapshot(
            strict=self.strict,
            aggregates=tuple(aggregates),
            classes=tuple(self._waiting()),
            held=held,
            quotas={key: dict(value) for key, value in self.quotas.items()},
            shares=shares,
            reservation=self.reservation,
        )

    #: As the last commit left it.
    reservation: Reservation | None = None

    def _reserved(self) -> Reservation | None:
        """As the database has it; one at most."""
        found = [
            Reservation(row["id"], row["reserved"])
            for row in self.rows.values()
            if row["reserved"] and row["status"] == "queued"
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def _waiting(self) -> Iterator[Class]:
        """Each entry is a class of its own, its place in the model's line is its order."""
        for queue, line in self.lines.items():
            for at, each in enumerate(line):
                head = Head(each.id, at, "V", each.since)
                yield Class(each.id, queue, self.queues[queue], each.owner, each.need, each.bound, (head,), 1)

    def _running(self) -> list[Known]:
        return [entry for entry in self.entries.values() if entry.status == "running"]

    def _held(self) -> tuple[dict[tuple[int, str], Amounts], dict[int, Amounts]]:
        held: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
        shares: dict[int, Counter[str]] = defaultdict(Counter)
        for entry in self._running():
            held[entry.queue, entry.owner].update(entry.wants())
            shares[entry.queue].update(entry.wants())
        return {key: dict(one) for key, one in held.items()}, {key: dict(one) for key, one in shares.items()}

    def _booked(self, bookings: list[dict[str, Any]]) -> dict[int, Amounts]:
        found: dict[int, Amounts] = defaultdict(dict)
        for row in bookings:
            host, resource = self.resources[row["resource_id"]]
            found[host][resource] = row["amount"]
        return dict(found)

    # --- afterwards -----------------------------------------------------------------------------------------

    def _compare(self, changed: dict[str, list[Row]]) -> None:
        """What the commit touched is as the model has it: order, numbers, statuses, holdings."""
        touched = {(row.new or {})["queue_id"] for row in changed["queues_entry"]}
        for queue in touched:
            there = [
                row for row in self.rows.values() if row["queue_id"] == queue and row["status"] == "queued"
            ]
            there.sort(key=lambda row: (row["priority"], row["tie"]))
            assert [row["id"] for row in there] == [each.id for each in self.lines[queue]]
            assert [row["priority"] for row in there] == [each.number for each in self.lines[queue]]
        for row in changed["queues_entry"]:
            new = row.new or {}
            assert new["status"] == self.entries[new["id"]].status
        if changed["queues_entry"]:
            held, _ = self._held()
            assert {key: amount for key, amount in self.holdings.items() if amount} == {
                (*owner, name): amount for owner, amounts in held.items() for name, amount in amounts.items()
            }
        self.reservation = self._reserved()


def _by_table(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.what].append(row)
    return found


def _began(row: Row) -> bool:
    return (row.new or {}).get("status") == "running" and (row.old or {}).get("status") == "queued"
