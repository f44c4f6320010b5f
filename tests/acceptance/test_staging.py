"""Inputs from a Swift, a command, outputs into a Swift: the engine's own part, with a node as it runs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from django.db import connection

from tests.support.cluster import Cluster
from tests.support.engine import output, run, wait_final
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.images import BUSYBOX
from tests.support.invariants import assert_invariants
from tests.support.staged import OPEN, inputs, outputs, staged, stdout
from tests.support.swift import KEY, Swift
from tests.support.waiting import wait_until
from workers import services
from workers.models import RunEvent, Secret
from workers.vocabulary.specs import ContainerSpec
from workers.vocabulary.states import Reason, State

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def node(cluster: Cluster) -> Cluster:
    cluster.env |= {**OPEN, "GANTRY_SWIFT_SEGMENT_MB": "1"}
    cluster.node()
    return cluster


def notes(run_id: int) -> list[str]:
    return list(
        RunEvent.objects.filter(run_id=run_id).exclude(note="").order_by("pk").values_list("note", flat=True)
    )


def mentions(text: str) -> list[str]:
    """Columns of the whole database that hold a text in the clear."""
    found = []
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'
               AND data_type IN ('text', 'character varying', 'jsonb', 'bytea')"""
        )
        for table, column in cursor.fetchall():
            cursor.execute(f'SELECT 1 FROM "{table}" WHERE "{column}"::text LIKE %s LIMIT 1', [f"%{text}%"])
            if cursor.fetchone():
                found.append(f"{table}.{column}")
    return found


def test_what_goes_in_comes_out(node: Cluster, account: Account, swift: Swift) -> None:
    """One node for many runs: each step says what it catches."""
    box = swift.container()
    many = os.urandom(2_500_000)
    swift.put(f"{box}/a%20b.bin", many)
    swift.put(f"{box}/plain", b"second\n")

    _files_and_a_stream(node, account, swift, box, many)
    _a_failure_stores_nothing(account, swift, box)
    _a_file_that_was_not_made(account, swift, box)
    _a_missing_input_is_named(account, swift, box)
    _one_that_is_waited_for(account, swift, box)
    _a_stream_beyond_the_logs_cap_is_whole(account, swift, box)
    _the_key_is_hidden(account, swift, box)
    _wrong_key(account, swift, box)
    wait_until(lambda: not Secret.objects.filter(run__isnull=False).exists(), why="the keys are wiped")
    assert mentions(KEY) == []
    assert list((node.folder / "n1" / "scratch").iterdir()) == []
    assert swift.names(f"{box}_segments") == [
        name for name in swift.names(f"{box}_segments") if name.startswith(("big", "out.bin"))
    ], "segments are left of something that was not stored"
    log = "".join(process.text() for process in node.processes)
    assert KEY not in log
    assert_invariants(node)


def _files_and_a_stream(node: Cluster, account: Account, swift: Swift, box: str, many: bytes) -> None:
    command = "cat 'in/0/a b.bin' in/1/plain > out/0; cp in/1/plain out/1; echo fine"
    run_id = staged(
        account.tenant_id,
        swift,
        command,
        inputs=inputs(f"{box}/a b.bin", f"{box}/plain"),
        outputs=[*outputs(f"{box}/out.bin", f"{box}/small"), *stdout(f"{box}-new/said")],
    )
    (row,) = wait_final(run_id)

    assert (row.state, row.message) == (State.SUCCEEDED, "Command exited with status 0")
    assert swift.get(f"{box}/out.bin") == many + b"second\n"
    assert swift.get(f"{box}/small") == b"second\n"
    assert swift.get(f"{box}-new/said") == b"fine\n"
    assert notes(run_id) == ["fetching 2 inputs", "storing 3 outputs", "stored 3 outputs"]
    assert KEY not in str(row.spec)


def _a_failure_stores_nothing(account: Account, swift: Swift, box: str) -> None:
    run_id = staged(account.tenant_id, swift, "echo half > out/0; exit 3", outputs=outputs(f"{box}/never"))
    (row,) = wait_final(run_id)

    assert (row.state, row.reason, row.exit_code) == (State.FAILED, Reason.EXIT_CODE, 3)
    assert "never" not in swift.names(box)


def _a_file_that_was_not_made(account: Account, swift: Swift, box: str) -> None:
    """None of the outputs is stored: all of them, or none."""
    run_id = staged(account.tenant_id, swift, "echo one > out/0", outputs=outputs(f"{box}/one", f"{box}/two"))
    (row,) = wait_final(run_id)

    assert (row.state, row.reason) == (State.FAILED, Reason.OUTPUT)
    assert row.message == "it made no output file out/1: there is no such file"
    assert not {"one", "two"} & set(swift.names(box))


def _a_missing_input_is_named(account: Account, swift: Swift, box: str) -> None:
    run_id = staged(account.tenant_id, swift, "true", inputs=inputs(f"{box}/plain", f"{box}/nothing"))
    (row,) = wait_final(run_id)

    assert (row.state, row.reason) == (State.FAILED, Reason.INPUT)
    assert f"{box}/nothing" in row.message


def _one_that_is_waited_for(account: Account, swift: Swift, box: str) -> None:
    run_id = staged(
        account.tenant_id,
        swift,
        "cp in/0/late out/0",
        inputs=inputs(f"{box}/late", wait_until=time.time() + 600),
        outputs=outputs(f"{box}/late-copy"),
    )
    wait_until(lambda: "late" in run(run_id).message, why="it says what it waits for")
    wait_until(
        lambda: f"swift://{box}/late" in str(services.explain(account.tenant_id, run_id)["reasons"]),
        why="explain says so, too",
        see=lambda: services.explain(account.tenant_id, run_id),
    )
    swift.put(f"{box}/late", b"at last")
    (row,) = wait_final(run_id)

    assert row.state == State.SUCCEEDED
    assert swift.get(f"{box}/late-copy") == b"at last"


def _a_stream_beyond_the_logs_cap_is_whole(account: Account, swift: Swift, box: str) -> None:
    """Catches a hole of zeros in an object, where the log's middle is left out."""
    run_id = staged(
        account.tenant_id,
        swift,
        "i=0; while [ $i -lt 60000 ]; do echo line $i; i=$((i+1)); done; echo end >&2",
        outputs=stdout(f"{box}/big"),
        log_head=4096,
        log_tail=4096,
    )
    (row,) = wait_final(run_id)

    assert row.state == State.SUCCEEDED, row.message
    assert swift.get(f"{box}/big") == b"".join(b"line %d\n" % n for n in range(60_000))
    assert len(output(run_id)) < 100_000, "the log is capped all the same"
    assert output(run_id, stream=2) == b"end\n"


def _the_key_is_hidden(account: Account, swift: Swift, box: str) -> None:
    run_id = staged(
        account.tenant_id, swift, "echo the key is te''sting | tee /dev/stderr", outputs=stdout(f"{box}/told")
    )
    (row,) = wait_final(run_id)

    assert row.state == State.SUCCEEDED
    assert output(run_id) == output(run_id, stream=2) == b"the key is ***\n"
    assert swift.get(f"{box}/told") == f"the key is {KEY}\n".encode(), "the object has what it wrote"


def _wrong_key(account: Account, swift: Swift, box: str) -> None:
    """It was good when the run was submitted, and was changed meanwhile."""
    store = swift.store(key="changed-meanwhile")
    run_id = staged(account.tenant_id, store, "true", inputs=inputs(f"{box}/plain"))
    (row,) = wait_final(run_id)

    assert (row.state, row.reason) == (State.FAILED, Reason.INPUT)
    assert "401" in row.message
    assert "changed-meanwhile" not in row.message


def test_a_link_in_an_outputs_place_is_not_followed(
    node: Cluster, account: Account, swift: Swift, tmp_path: Path
) -> None:
    """Catches a worker that uploads, as root, what its command may not read."""
    box = swift.container()
    run_id = staged(account.tenant_id, swift, "ln -s /etc/shadow out/0", outputs=outputs(f"{box}/shadow"))
    (row,) = wait_final(run_id)

    assert (row.state, row.reason) == (State.FAILED, Reason.OUTPUT)
    assert "no ordinary file" in row.message
    assert swift.names(box) == []


def test_a_container_is_staged_alike(
    cluster: Cluster, engine: Engine, account: Account, swift: Swift
) -> None:
    """Catches a container that finds its inputs elsewhere, or whose output is cut where its log is."""
    cluster.env |= {**OPEN, **engine.env}
    cluster.node()
    box = swift.container()
    swift.put(f"{box}/in", b"three\nlittle\nlines\n")
    script = "wc -l < in/0/in > out/0; i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
    spec = ContainerSpec(
        image=BUSYBOX,
        force_pull=False,
        args=["sh", "-c", script],
        cpu_m=100,
        mem_mb=64,
        log_head=4096,
        log_tail=4096,
        stores=[{**swift.store().to_json(), "key": KEY}],
        inputs=inputs(f"{box}/in"),
        outputs=[*outputs(f"{box}/count"), *stdout(f"{box}/said")],
    )
    (row,) = wait_final(
        services.submit(
            services.Submission(tenant_id=account.tenant_id, family="tasks", spec=spec, name="staged")
        )
    )

    assert row.state == State.SUCCEEDED, row.message
    assert swift.get(f"{box}/count") == b"3\n"
    assert swift.get(f"{box}/said") == b"".join(b"line %d\n" % n for n in range(20_000))
    assert len(output(row.pk)) < 100_000
    assert_invariants(cluster, engines=[engine])
