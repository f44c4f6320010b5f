"""The guard of a node's containers goes when nothing is left to guard, and not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.engines import Engine
from tests.support.images import BUSYBOX
from workers.launcher import control
from workers.launcher.containers import ContainerGuard
from workers.launcher.guard import Guard
from workers.runtimes.engine.client import Address
from workers.runtimes.engine.client import Engine as Client

LABELS = {"gantry.installation": "here", "gantry.node": "n1"}


def guard_of(engine: Engine, folder: Path, *, last_renewal_s: float) -> ContainerGuard:
    client = Client(Address.parse(engine.url))
    execs: Any = {
        "installation": "here",
        "node": "n1",
        "runs": str(folder / "runs"),
        "execs": str(folder / "execs"),
    }
    control.write_record(str(folder / "engine"), {**client.record(), **execs})
    client.close()
    Guard(str(folder), control.boot_id()).renew(600.0, 900.0, control.boottime() - last_renewal_s)
    made = ContainerGuard(str(folder))
    made._idle_since -= 100  # as if it had been idle for so long
    return made


def test_it_goes_when_nothing_is_left(engine: Engine, tmp_path: Path) -> None:
    assert guard_of(engine, tmp_path, last_renewal_s=5).look(), "its worker lives"
    (tmp_path / "renewed").unlink()
    assert not guard_of(engine, tmp_path, last_renewal_s=40).look(), "its worker ended, nothing runs"


def test_it_stays_while_something_runs(engine: Engine, tmp_path: Path) -> None:
    made = engine.client.containers.run(BUSYBOX, ["sleep", "1000"], detach=True, labels=LABELS)
    try:
        assert guard_of(engine, tmp_path, last_renewal_s=40).look()
    finally:
        made.remove(force=True)
    place = tmp_path / "execs" / "7-1"
    place.mkdir(parents=True)
    control.write_record(str(place / "plan"), {"container": "x", "mark": "y", "fence": True})
    assert guard_of(engine, tmp_path, last_renewal_s=40).look()
    control.write_record(str(place / "exit"), {"code": 0})
    assert not guard_of(engine, tmp_path, last_renewal_s=40).look()


def test_one_that_cannot_be_ended_keeps_no_other_alive(engine: Engine, tmp_path: Path) -> None:
    """Catches attempts that overlap since another container of the node, or another exec, is out of order."""
    labels = [{**LABELS, "gantry.run": run, "gantry.attempt": "1"} for run in ("7", "../out of order", "8")]
    made = [
        engine.client.containers.run(BUSYBOX, ["sleep", "1000"], detach=True, labels=given)
        for given in labels
    ]
    (tmp_path / "runs" / "7-1").mkdir(parents=True)
    (tmp_path / "runs" / "8-1" / "stop").mkdir(parents=True)  # where a file should be
    (tmp_path / "execs" / "9-1" / "plan").mkdir(parents=True)
    try:
        guard = guard_of(engine, tmp_path, last_renewal_s=899)
        assert guard.look(), "something is left"
        for each in made:
            each.reload()
        assert [each.status for each in made] == ["exited", "running", "running"]
    finally:
        for each in made:
            each.remove(force=True)
