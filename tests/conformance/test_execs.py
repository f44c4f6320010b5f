"""What a command inside a container finds there, and what it may do to the container, whoever watches it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.driving import Collected, ended, start
from tests.conformance.subjects import Execs
from tests.support.cluster import pids_under
from tests.support.engines import Engine
from tests.support.images import BARE, load_bare
from tests.support.machine import kill
from workers.logs.capture import STDOUT
from workers.node.attempt.outcomes import interpret, noted
from workers.runtimes.base import PrepareFailed, Result, Runtime
from workers.vocabulary.leases import ClaimedRun

ENVIRONMENT = [
    "discovery.type=single",
    "a-b=c",
    "1A=x",
    "PWD=/zz",
    "OPTIND=7",
    "IFS=,",
    "SHLVL=9",
    "lines=a\nb",
]


@pytest.fixture
def box(engine: Engine) -> Iterator[Execs]:
    made = Execs(engine)
    try:
        yield made
    finally:
        made.close()


def done(box: Execs, script: str = "", **more: Any) -> tuple[Result, bytes]:
    """How it ended, and what it said."""
    runtime, run = box.runtime(), box.run(script, **more)
    start(runtime, run)
    result = ended(runtime, run)
    said = after(runtime, run)
    runtime.cleanup(run.lease.run_id, run.lease.attempt)
    return result, said


def after(runtime: Runtime, run: ClaimedRun) -> bytes:
    """What it has written."""
    collected = Collected(runtime, run)
    collected.rest()
    return collected.text()[STDOUT]


def test_its_environment_is_that_of_docker_exec(engine: Engine) -> None:
    api = engine.client.api
    box = Execs(engine)
    try:
        box.container = api.create_container(
            box.image, box.command, environment=ENVIRONMENT, host_config=api.create_host_config(init=True)
        )["Id"]
        api.start(box.container)
        own = {"b.c": "d", "PPID": "5", "lines": "c\nd"}
        result, said = done(box, argv=["cat", "/proc/self/environ"], env=own)
        assert result.code == 0
        found = {entry for entry in said.split(b"\0") if not entry.startswith(b"GANTRY_EXEC=")}
        told = api.exec_create(box.container, ["cat", "/proc/self/environ"], environment=own)["Id"]
        assert found == set(api.exec_start(told).split(b"\0"))
        api.remove_container(box.container, force=True)
    finally:
        box.close()


def test_nothing_of_ours_is_seen_beside_it(box: Execs) -> None:
    result, said = done(box, argv=["ps", "-o", "args"])
    assert result.code == 0
    # The container's init and its own command.
    assert said.decode().split("\n")[1:] == [
        "/sbin/docker-init -- sleep 100000",
        "sleep 100000",
        "ps -o args",
        "",
    ]


def test_files_may_vanish_and_places_may_fill(box: Execs) -> None:
    """Catches output or an end that are kept where the command can take them away."""
    result, said = done(box, "rm -rf /tmp/.[!.]* /dev/shm/.[!.]*; echo still here; exit 4")
    assert (result.code, said) == (4, b"still here\n")
    result, said = done(
        box, "dd if=/dev/zero of=/dev/shm/full bs=1M; head -c 80000000 /dev/zero; echo end; exit 5"
    )
    assert (result.code, said.endswith(b"end\n")) == (5, True)
    result, _ = done(box, "kill -9 $PPID; exit 6")  # its parent is nobody here: 0, its own group
    assert result.code == 137


@pytest.mark.parametrize(
    ("done_to_it", "told", "deaf"),
    [
        ("stop", "has stopped with exit code 137", False),
        ("restart", "was restarted", False),
        ("restart", "was restarted", True),
        ("remove", "was removed", True),
    ],
)
def test_what_became_of_its_container_is_told(engine: Engine, done_to_it: str, told: str, deaf: bool) -> None:
    """By name and id. Catches "the machine or its launcher stopped", which nobody had.

    ``deaf``: whoever listened died before.
    """
    box = Execs(engine)
    try:
        runtime, run = box.runtime(), box.run(argv=["sleep", "1000"])
        start(runtime, run)
        if deaf:
            kill(*pids_under(box.node / "listener"))
        api = engine.client.api
        name = api.inspect_container(box.container)["Name"].lstrip("/")
        if done_to_it == "remove":
            api.remove_container(box.container, force=True)
        else:
            getattr(api, done_to_it)(box.container, timeout=0)
        result = ended(runtime, run)
        facts = runtime.facts(run)
        outcome = interpret(run, runtime.noun, result, operator=False, lost=facts.lost)
        assert f"its container {name}, id {box.container[:12]}, {told}" in noted(outcome.message, facts)
        assert "launcher" not in outcome.message
        assert result.code in (None, 137)
    finally:
        box.close()


def test_words_of_shells_are_no_programs(box: Execs) -> None:
    runtime, run = box.runtime(), box.run(argv=["cd", "/tmp"])
    with pytest.raises(
        PrepareFailed, match=r"cd is a word of shells and no program: write sh -c 'cd \.\.\.'"
    ):
        start(runtime, run)


def test_secrets_are_not_told_by_the_engine(box: Execs) -> None:
    runtime = box.runtime()
    run = box.run(argv=["sh", "-c", 'test "$1" = "line one\nand \'two\'" && echo same', "sh"])
    run = replace(run, secrets=("line one\nand 'two'",))
    start(runtime, run)
    assert ended(runtime, run).code == 0
    told = box.engine.client.api.exec_inspect(runtime.facts(run).told["exec_id"])
    assert "line one" not in str(told)
    assert after(runtime, run) == b"same\n"


def test_a_daemon_that_holds_the_output_open_holds_up_nobody(box: Execs) -> None:
    result, said = done(box, "sleep 300 & echo parent; exit 3")
    assert (result.code, said) == (3, b"parent\n")


def test_without_a_shell(engine: Engine) -> None:
    load_bare(engine)

    class Bare(Execs):
        image, command = BARE, ["/bin/busybox", "sleep", "100000"]

    bare = Bare(engine)
    try:
        result, said = done(bare, argv=["/bin/busybox", "sh", "-c", "echo said; exit 126"])
        assert (result.code, said) == (126, b"said\n")
        runtime, run = bare.runtime(), bare.run(argv=["/no/such/program"])
        with pytest.raises(PrepareFailed, match="/no/such/program"):
            start(runtime, run)
    finally:
        bare.close()
