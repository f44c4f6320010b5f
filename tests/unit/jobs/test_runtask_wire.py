"""What runtask runs for a request, and what it says of a job: pure, both directions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from jobs.runtask import errors, hooks, schema, wire
from jobs.runtask.asking import plan as planning
from jobs.runtask.asking import requests
from jobs.runtask.asking.plan import Limits, Plan
from jobs.runtask.catalogue.parsing import Definition
from jobs.runtask.errors import Refused
from jobs.runtask.wire import JobFacts
from tests.unit.jobs.test_runtask_requests import WHO
from workers.tenants.bounds import NO_BOUNDS, Bounds
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.families import ENDED, RUNNING, CallbackFacts
from workers.vocabulary.specs import ContainerSpec, ProcessSpec
from workers.vocabulary.staging import Input, Output
from workers.vocabulary.states import Reason, State

ALL = frozenset(("commands", "runtask_cm"))
LIMITS = Limits(cpu_m=1000, mem_mb=512, timeout_s=60, log=1001)
COUNT = Definition("count", 'wc -c "$1"\n')


def plan(
    definition: Definition = COUNT, allowed: frozenset[str] = ALL, bounds: Bounds = NO_BOUNDS, **body: Any
) -> Plan:
    asked = requests.parse({**WHO, **body})
    if isinstance(asked, requests.CommandRequest):
        return planning.of_command(asked, allowed)
    return planning.of_definition(asked, definition, "spare", allowed, bounds)


def spec(*args: Any, **body: Any) -> ProcessSpec | ContainerSpec:
    return planning.spec(plan(*args, **body), "7", 1000.0, LIMITS)


def files(found: ProcessSpec | ContainerSpec) -> tuple[list[Input], list[Output]]:
    return [Input.from_json(item) for item in found.inputs], [
        Output.from_json(item) for item in found.outputs
    ]


def test_a_definition_over_an_object() -> None:
    found = spec(container_name="c c", file_name="d/my reads.fa")
    assert isinstance(found, ProcessSpec)
    assert found.argv == ["bash", "-c", COUNT.script, "count", "in/0/my_reads.fa"]
    assert files(found) == (
        [Input(url="swift://c%20c/d/my%20reads.fa", path="in/0/my_reads.fa", store=0)],
        [Output(url="swift://c%20c/7", stream="stdout", store=0, content_type="text/plain")],
    )
    assert (found.cpu_m, found.mem_mb, found.log_head, found.log_tail) == (1000, 512, 500, 501)
    assert [store["key"] for store in found.stores] == ["canary-key"]


def test_a_first_step_without_a_container() -> None:
    first = Definition("first", "date\n", first=True)
    found = spec(first)
    assert found == spec(first, file_name="None", container_name="")
    assert isinstance(found, ProcessSpec)
    assert found.argv[-1] == ""
    assert files(found) == (
        [],
        [
            Output(
                url="swift://spare/7",
                stream="stdout",
                store=0,
                content_type="text/plain",
                make_container=True,
            )
        ],
    )
    assert plan(first).needed == ""
    assert plan(first, container_name="c").needed == "c"
    with pytest.raises(InvalidInput, match="no first step"):
        plan(COUNT)


def test_an_object_of_the_servers_container() -> None:
    inputs, outputs = files(spec(file_name="a"))
    assert (inputs[0].url, outputs[0].url, outputs[0].make_container) == (
        "swift://spare/a",
        "swift://spare/7",
        True,
    )


ODD = ["a b", "it's", '"', "$(touch x)", "`id`", "a\nb", "-n", "", "é", "\\", "*"]


def test_values_arrive_as_plain_arguments() -> None:
    found = spec(Definition("d", "x\n", parameters=len(ODD)), file_name="f", parameters=ODD)
    assert isinstance(found, ProcessSpec)
    assert found.argv[5:] == ODD
    same = {f"param_{number}": value for number, value in enumerate(ODD, 1)}
    assert spec(Definition("d", "x\n", parameters=len(ODD)), file_name="f", **same) == found


def test_values_by_name_are_the_environment() -> None:
    named = Definition("d", "x\n", parameters=("a", "b"))
    for body in ({"param_a": "1 2", "param_b": ""}, {"parameters": {"b": "", "a": "1 2"}}):
        found = spec(named, file_name="f", **body)
        assert (found.env, len(getattr(found, "argv", []))) == ({"a": "1 2", "b": ""}, 5)


@pytest.mark.parametrize(
    ("wanted", "body", "field"),
    [
        (2, {}, "param_1"),
        (2, {"param_1": "a"}, "param_2"),
        (1, {"param_1": "a", "param_2": "b"}, "param_2"),
        (1, {"parameters": ["a", "b"]}, "parameters"),
        (0, {"parameters": "a"}, "parameters"),
        (0, {"param_x": "a"}, "param_x"),
        (("a",), {}, "param_a"),
        (("a",), {"param_a": "1", "param_b": "2"}, "param_b"),
        (("a",), {"parameters": ["1"]}, "parameters"),
        ((), {"parameters": {"PATH": "1"}}, "param_PATH"),
    ],
)
def test_one_missing_and_one_too_many(wanted: Any, body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        plan(Definition("d", "x\n", parameters=wanted), file_name="f", **body)
    assert caught.value.field == field


def test_limits_of_a_definition_count_before_the_settings() -> None:
    found = plan(Definition("d", "x\n", first=True, cpu_m=2000, mem_mb=64, timeout_s=5))
    made = planning.spec(found, "7", 0.0, LIMITS)
    assert (made.cpu_m, made.mem_mb, found.timeout_s) == (2000, 64, 5)


def test_a_definition_in_an_image() -> None:
    boxed = Definition("d", 'wc "$1"\n', image="busybox:1")
    found = spec(boxed, frozenset(), file_name="f")
    assert isinstance(found, ContainerSpec)
    assert (found.image, found.force_pull, found.network) == ("busybox:1", False, "BRIDGE")
    assert found.args[:2] == ["bash", "-c"]
    assert found.args[2].endswith(boxed.script)
    assert found.args[3:] == ["d", "in/0/f"]
    with pytest.raises(Refused, match="policy"):
        plan(boxed, ALL, Bounds(images=("other.example/*",)), file_name="f")
    with pytest.raises(Refused, match=r"the registry .* is not open for this tenant"):
        plan(boxed, ALL, Bounds(registries=("other.example",)), file_name="f")


def test_a_command_line() -> None:
    found = spec(
        cm="cut {input_file[1]} {input_file[0]} > {output_file}",
        input_file="c/a b|d",
        output_file="o/x/r.txt",
    )
    assert isinstance(found, ProcessSpec)
    assert found.argv == ["/bin/sh", "-c", "cut in/1/d in/0/a_b > out/0/r.txt"]
    assert files(found) == (
        [
            Input(url="swift://c/a%20b", path="in/0/a_b", store=0),
            Input(url="swift://c/d", path="in/1/d", store=0),
        ],
        [Output(url="swift://o/x/r.txt", path="out/0/r.txt", store=0, make_container=True)],
    )


def test_a_command_line_whose_output_is_what_it_prints() -> None:
    found = spec(cm="cat {input_file[0]}; echo {{output_file}}", input_file="c/a", output_file="o/r.html")
    assert files(found)[1] == [
        Output(
            url="swift://o/r.html", stream="stdout", store=0, content_type="text/plain", make_container=True
        )
    ]
    nothing = spec(cm="true")
    assert files(nothing) == ([], [])
    assert nothing.stores, "its credentials mask what it prints"


def test_an_output_that_is_its_input() -> None:
    inputs, outputs = files(
        spec(cm="sort {input_file[0]} > {output_file}", input_file="c/a", output_file="c/a")
    )
    assert inputs[0].url == outputs[0].url
    assert inputs[0].path != outputs[0].path


def test_waiting_for_an_input() -> None:
    inputs, _ = files(spec(cm="true", input_file="c/a|b", wait_for_input="60"))
    assert [item.wait_until for item in inputs] == [1060.0, 1060.0]
    assert plan(cm="true", input_file="c/a", wait_for_input="60").wait_s == 60


def test_the_policy() -> None:
    for allowed in (frozenset(), frozenset(("commands",))):
        with pytest.raises(Refused, match="runtask_cm"):
            plan(COUNT, allowed, cm="true")
    sent: tuple[dict[str, Any], ...] = ({"cm": "true"}, {"file_name": "f"})
    for body in sent:
        with pytest.raises(Refused, match="allow commands"):
            plan(COUNT, frozenset(("runtask_cm",)), **body)
    plan(COUNT, frozenset(("commands",)), file_name="f")


def test_a_command_line_that_grows_too_long() -> None:
    with pytest.raises(InvalidInput, match="longer"):
        plan(cm="{input_file[0]}" * 8000, input_file="c/" + "x" * 100)


# --- Answers -----------------------------------------------------------------------------------------


def facts(state: State, reason: str = "", message: str = "") -> JobFacts:
    return JobFacts(2, 7, state, reason, message, 1, False)


BOTH = ("job_id", "job_done", "job_error", "status", "out", "error")


@pytest.mark.parametrize(
    ("given", "err", "says"),
    [
        (facts(State.PENDING), b"", (False, False, "")),
        (facts(State.RUNNING, message="fetching 1 of 2"), b"so far", (False, False, "so far")),
        (facts(State.SUCCEEDED), b"a warning", (True, False, "a warning")),
        (facts(State.FAILED, Reason.EXIT_CODE, "exit 3"), b"bad", (True, True, "bad")),
        (facts(State.FAILED, Reason.EXIT_CODE, "exit 3"), b" \n", (True, True, "exit 3")),
        (facts(State.FAILED, Reason.INPUT, "c/a is not there"), b"", (True, True, "c/a is not there")),
        (facts(State.FAILED, Reason.OUTPUT, "quota"), b"warned", (True, True, "quota\nwarned")),
        (facts(State.FAILED, Reason.TIMEOUT), b"", (True, True, "it has failed: ran longer than allowed")),
        (
            facts(State.CANCELLED, "", "Cancelled before it started"),
            b"x",
            (True, True, "Cancelled: before it started"),
        ),
        (
            facts(State.CANCELLED, "operator", "Cancelled by an operator"),
            b"",
            (True, True, "Cancelled: by an operator"),
        ),
        (facts(State.CANCELLED, "", "Killed"), b"", (True, True, "Cancelled: Killed")),
        (facts(State.CANCELLED, "", ""), b"", (True, True, "Cancelled: on request")),
    ],
)
def test_a_job(given: JobFacts, err: bytes, says: tuple[bool, bool, str]) -> None:
    found = wire.render_job(given, b"out \xff", err)
    done, bad, error = says
    assert {key: found[key] for key in BOTH} == {
        "job_id": "2", "job_done": done, "job_error": bad, "status": True, "out": "out \ufffd", "error": error
    }  # fmt: skip
    more = {"error_message": error} if bad else {"process_out": "out \ufffd"} if done else {}
    assert found == {key: found[key] for key in BOTH} | more


def test_the_seeds_answers() -> None:
    assert wire.render_submitted(2) == {"status": True, "job_id": "2"} == schema.SUBMITTED_EXAMPLE
    assert wire.render_cancelled(2, True) == schema.RUNNING_EXAMPLE
    assert wire.render_cancelled(2, False) == schema.ENDED_EXAMPLE
    out = schema.JOB_EXAMPLE["out"].encode()
    assert wire.render_job(facts(State.SUCCEEDED), out, b"") == schema.JOB_EXAMPLE
    for ids, empty in ((["2", "3"], False), ([], True)):
        before, after = wire.list_around(empty)
        body = json.loads(before + ",".join(f'"{item}"' for item in ids) + after)
        assert body == {"status": True, "empty": empty, "jobs": ids}


def test_definitions() -> None:
    assert wire.render_definition(Definition("a", "x", True, ("b",), "text", "busybox")) == {
        "name": "a", "first": True, "parameters": ["b"], "image": "busybox", "description": "text",
    }  # fmt: skip
    assert wire.render_definition(Definition("a", "x")) == {
        "name": "a", "first": False, "parameters": 0, "description": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, "BadRequest") for status in (400, 405, 415)),
        (401, "Unauthorized"),
        (403, "Forbidden"),
        (404, "NotFound"),
        (409, "Conflict"),
        (413, "TooLarge"),
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (502, "SwiftError"),
        (503, "InternalError"),
    ],
)
def test_errors(status: int, kind: str) -> None:
    assert errors.render_error(status, "x", "what", "f") == {
        "status": False,
        "error_message": f"{kind}: what",
    }


NOW = datetime(2026, 11, 30, tzinfo=UTC)


def told(**more: Any) -> CallbackFacts:
    given: dict[str, Any] = {
        "run_id": 7, "tenant": "t", "family": "runtask", "kind": "process", "name": "count", "owner_id": "2",
        "state": State.RUNNING, "reason": "", "message": "Command is running", "exit_code": None,
        "attempt": 1,
        "retries_left": 0, "created_at": NOW, "started_at": NOW, "finished_at": None, "by_operator": False,
        "image": None, "node": "n1", "host": "h", "by": "n1", "sequence": 1,
        "facts": {},
        "signed_log": lambda path, stream: path, **more,
    }  # fmt: skip
    return CallbackFacts(**given)


COMMON = {"job_id": "2", "name": "count", "run_id": 7, "node": "n1", "sequence": 1}


def test_callbacks() -> None:
    assert hooks.callback(told(), RUNNING) == {
        **COMMON,
        "job_done": False,
        "job_error": False,
        "exit_code": None,
    }
    good = told(state=State.SUCCEEDED, exit_code=0)
    assert hooks.callback(good, ENDED) == {**COMMON, "job_done": True, "job_error": False, "exit_code": 0}
    bad = told(state=State.FAILED, reason=Reason.INPUT, message="c/a is not there")
    assert hooks.callback(bad, ENDED) == {
        **COMMON, "job_done": True, "job_error": True, "exit_code": None, "error_message": "c/a is not there",
    }  # fmt: skip
    ended = told(state=State.CANCELLED, message="Cancelled before it started", node=None)
    assert hooks.callback(ended, ENDED)["error_message"] == "Cancelled: before it started"


def test_the_owner_of_a_run() -> None:
    assert hooks.owner(told()) == {"id": "2", "url": "/job/?job_id=2"}
