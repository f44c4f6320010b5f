"""Two nodes with an engine and a rack of their own: where containers go, never too many, one engine away."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import docker
import pytest

from tests.acceptance.sampling import Sampler
from tests.support.cluster import Cluster
from tests.support.containers import NODE, submit_container
from tests.support.engine import run, wait_final
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.invariants import (
    assert_invariants,
    assert_once,
    assert_truth,
    ledger_command,
    open_ledger,
)
from tests.support.watching import Again
from workers.models import Attempt
from workers.vocabulary.states import State

RACKS = {"n1": "r1", "n2": "r2"}
#: CPUs and MiB of each node.
CPUS, MEM_MB = 2, 640


class EngineWatch(Again):
    """A thread that asks the engines all the time how many of a node's containers run at once."""

    def __init__(self, engines: dict[str, Engine]) -> None:
        super().__init__(self._look, 0.05)
        self.peak = dict.fromkeys(engines, 0)
        self._engines = engines

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is None:
            assert self.count > 10, f"only {self.count} samples: they prove nothing"

    def _look(self) -> None:
        for name, engine in self._engines.items():
            try:
                running = engine.client.api.containers(filters={"label": f"{NODE}={name}"})
            except (docker.errors.DockerException, OSError):
                continue
            self.peak[name] = max(self.peak[name], len(running))


def two_nodes(
    cluster: Cluster, engines: tuple[Engine, Engine], *, cpus: float = CPUS, mem_mb: int = MEM_MB
) -> dict[str, Engine]:
    there = dict(zip(RACKS, engines, strict=True))
    for name, engine in there.items():
        cluster.node(name, cpus=cpus, mem_mb=mem_mb, attributes=f"rack_id={RACKS[name]}", settings=engine.env)
    return there


@pytest.mark.timeout(400)
def test_forty_containers_on_two_engines(
    engines: tuple[Engine, Engine], cluster: Cluster, account: Account
) -> None:
    """Catches reservations or containers above a node's capacity at any moment, and a wrong rack."""
    _many(engines, cluster, account, 40)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_hundred_containers_on_two_engines(
    engines: tuple[Engine, Engine], cluster: Cluster, account: Account
) -> None:
    """The same with 200."""
    _many(engines, cluster, account, 200)


def _many(engines: tuple[Engine, Engine], cluster: Cluster, account: Account, how_many: int) -> None:
    there = two_nodes(cluster, engines)
    sizes = [(0.25, 64), (0.5, 96), (0.4, 160)]
    fits = int(CPUS / min(cpu for cpu, _ in sizes))
    wanted: dict[int, set[str]] = {}
    with Sampler() as books, EngineWatch(there) as watch:
        for number in range(how_many):
            cpu, mem_mb = sizes[number % 3]
            constraints, allowed = [
                ({"rack_id": ["r1"]}, {"n1"}),
                ({"rack_id": ["r2"]}, {"n2"}),
                ({"rack_id": ["r1", "r2"]}, {"n1", "n2"}),
                ({}, {"n1", "n2"}),
            ][number % 4]
            run_id = submit_container(
                account.tenant_id, "sleep 0.2; hostname", cpu=cpu, mem_mb=mem_mb, constraints=constraints
            )
            wanted[run_id] = allowed
        for ended in wait_final(*wanted, timeout_s=240):
            assert (ended.state, ended.attempt) == (State.SUCCEEDED, 1), ended.message
    where = {item.run_id: item.node.name for item in Attempt.objects.select_related("node")}
    assert all(where[run_id] in allowed for run_id, allowed in wanted.items())
    assert set(where.values()) == set(RACKS), "one node did it all"
    assert all(0 < peak <= fits for peak in watch.peak.values()), watch.peak
    assert max(books.peak.values()) > CPUS * 1000 / 2, "the nodes were never busy: this proves nothing"
    assert_invariants(cluster, engines=engines)


def test_one_engine_goes_away_and_comes_back(
    mortal_engine: Engine, engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches work that waits for the engine that is away although the other one has room; a node that takes
    containers it cannot run; and one that never takes work again."""
    ledger = open_ledger(shared_folder)
    two_nodes(cluster, (mortal_engine, engine))
    runs: dict[str, int] = {}

    def submit(name: str, racks: list[str] | None = None) -> int:
        runs[name] = submit_container(
            account.tenant_id,
            ledger_command(ledger, name, "sleep 0.2"),
            share=shared_folder,
            constraints={"rack_id": racks} if racks else {},
        )
        return runs[name]

    wait_final(submit("before", ["r1"]))
    mortal_engine.stop_daemon()
    bound = submit("bound", ["r1"])
    free = [submit(f"free{number}") for number in range(6)]
    for ended in wait_final(*free):
        assert (ended.state, ended.node and ended.node.name) == (State.SUCCEEDED, "n2")
    assert run(bound).started_at is None
    mortal_engine.start_daemon()
    (late,) = wait_final(bound)
    assert (late.state, late.node and late.node.name) == (State.SUCCEEDED, "n1")
    assert_once(ledger, runs)
    for name, run_id in runs.items():
        assert_truth(ledger, name, run_id)
    assert_invariants(cluster, engines=[mortal_engine, engine])
