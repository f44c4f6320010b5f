"""The units of deploy/systemd: systemd accepts them, and the worker works with what its unit leaves it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config import start
from tests.support.cluster import PATIENT, ROOT, Cluster
from tests.support.containers import submit_container
from tests.support.engine import output, submit, wait_final
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.machine import launcher
from tests.support.waiting import wait_until
from workers import services
from workers.vocabulary.states import State

UNITS = ROOT / "deploy" / "systemd"


def _options(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text().splitlines():
        name, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """Catches an option that does not exist, a wrong value and a wrong section."""
    assert shutil.which("systemd-analyze"), "the deployment tests need the Debian package systemd"
    for unit in UNITS.glob("gantry*.[st]*"):
        text = unit.read_text().replace("/opt/gantry/.venv/bin/python", sys.executable)
        text = text.replace("User=gantry", "User=daemon").replace("Group=gantry", "Group=daemon")
        (tmp_path / unit.name).write_text(text)
    units = sorted(str(path) for path in tmp_path.iterdir())
    assert len(units) == 6
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "gantry" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


@pytest.mark.parametrize("what", ["api", "worker", "callbacks", "flower"])
def test_each_unit_starts_what_it_is_named_for(what: str) -> None:
    options = _options(f"gantry-{what}.service")
    assert options["ExecStart"] == [f"/opt/gantry/.venv/bin/python -m config.start {what}"]
    assert options["RestartPreventExitStatus"] == ["78"]
    assert what in start.NEEDED
    if what != "worker":
        assert options["User"] == ["gantry"]
        assert options["CapabilityBoundingSet"] == [""]


def test_the_apis_port_is_held_before_it_starts_and_when_it_has_ended() -> None:
    api, port = _options("gantry-api.service"), _options("gantry-port.service")
    assert "gantry-port.service" in api["Wants"][0].split()
    assert "gantry-port.service" in api["After"][0].split()
    assert "gantry-port.service" in _options("gantry-worker.service")["After"][0].split()
    assert port["ExecStart"] == ["/opt/gantry/.venv/bin/python -m config.start port"]
    assert (port["Type"], port["User"], port["Restart"]) == (["notify"], api["User"], ["always"])
    assert "BindsTo" not in port, "it stays while the API is stopped"


def test_the_workers_unit_spares_what_runs() -> None:
    """Catches a unit that kills every command when the worker is stopped, or when one is out of memory."""
    options = _options("gantry-worker.service")
    assert options["KillMode"] == ["process"]
    assert options["OOMPolicy"] == ["continue"]
    assert not {"PrivateTmp", "RestrictNamespaces", "SystemCallFilter", "MemoryMax"} & set(options)


def test_by_hand_with_the_settings_of_the_units(tmp_path: Path) -> None:
    """Catches an operator's command that does not know what the units know, or takes a password for shell."""
    settings, link = tmp_path / "gantry.env", tmp_path / "gantry"
    settings.write_text(
        f'# of the units\nGANTRY_DATA_DIR={tmp_path}/a b\n\nGANTRY_NODE_NAME="n$HOME`id`"\nDATABASE_URL='
    )
    link.symlink_to(UNITS / "gantry")

    def gantry(*words: str, file: Path = settings) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(link), *words],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "GANTRY_ENV_FILE": str(file)},
            capture_output=True,
            text=True,
            check=False,
        )

    asked = gantry("health", "worker")
    assert (asked.returncode, asked.stderr.partition(":")[0]) == (
        1,
        f"no worker has ever run in {tmp_path}/a b/nodes/n$HOME`id`",
    )
    refused = gantry("migrate")
    assert (refused.returncode, "DATABASE_URL" in refused.stderr) == (78, True)
    nothing = gantry("migrate", file=tmp_path / "none")
    assert (nothing.returncode, "cannot be read" in nothing.stderr) == (77, True)


def _bounded() -> list[str]:
    """What bounds a program as the worker's unit bounds the worker."""
    if os.geteuid() != 0:
        pytest.fail("unit files are for root: this test needs root")
    (line,) = _options("gantry-worker.service")["CapabilityBoundingSet"]
    kept = ",".join("+" + name.removeprefix("CAP_").lower() for name in line.split())
    # Inheritable too, since setpriv would keep it: root's exec takes what the bounding set allows.
    return ["setpriv", "--bounding-set", f"-all,{kept}", "--no-new-privs", "--"]


def test_the_worker_guards_containers_with_what_its_unit_leaves(
    engine: Engine, cluster: Cluster, account: Account
) -> None:
    """Catches a capability that is missing for the firewall rules: every container would wait for ever."""
    cluster.node(under=_bounded(), settings=PATIENT | engine.env, GANTRY_WAIT_BROKER="0")
    run_id = submit_container(account.tenant_id, "echo within")
    (ended,) = wait_final(run_id)
    assert ended.state == State.SUCCEEDED, ended.message
    assert output(run_id) == b"within\n"


def test_the_worker_works_with_what_its_unit_leaves(cluster: Cluster, account: Account) -> None:
    """Catches a capability that is missing: no own user, no namespaces, a tree that cannot be killed."""
    cluster.node(under=_bounded(), settings=PATIENT, GANTRY_WAIT_BROKER="0")
    run_id = submit(account.tenant_id, "id -u; echo x > file; sleep 600 & setsid sleep 600 & sleep 600")
    wait_until(lambda: output(run_id), why="its first words are stored")
    found = launcher(cluster.folder / "n1")
    assert found is not None
    assert (found.isolation, found.isolation_reason) == ("namespaces", "")
    assert services.cancel(account.tenant_id, run_id).accepted
    (ended,) = wait_final(run_id)
    assert ended.state == State.CANCELLED
    assert int(output(run_id)) >= 200_000
