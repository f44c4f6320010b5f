"""What a person is told of an end that is not the command's own doing."""

from __future__ import annotations

from tests.support.claimed import claimed_run
from workers.node.attempt.outcomes import interpret, unprepared_message
from workers.runtimes.base import Result


def test_the_deaths_that_were_are_told_not_those_that_were_allowed() -> None:
    """Catches "its worker died 5 times" for seven."""
    run = claimed_run(1, crashes=7)
    killed = interpret(run, "Command", Result(killed="crashes"), operator=False)
    assert killed.message == "Command was killed: its worker died 7 times while it ran"
    assert unprepared_message("Command", 7).endswith("its worker died 7 times while preparing it")


def test_what_its_runtime_knows_of_a_loss_is_told() -> None:
    run = claimed_run(1)
    lost = interpret(run, "Command", Result(lost=True), operator=False, lost="its container web was removed")
    assert lost.message == (
        "Command is gone and left no exit code (its container web was removed): its outcome is unknown"
    )
    assert "launcher stopped" in interpret(run, "Command", Result(lost=True), operator=False).message
