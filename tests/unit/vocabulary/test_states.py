"""The table of transitions, docs/lifecycle.md and the functions of transitions and running say the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest
from django.conf import settings

from workers.runs import running, transitions
from workers.vocabulary.states import EDGES, FINAL, LEGAL, Reason, State, is_final

pytestmark = pytest.mark.invariant

ROOT = Path(__file__).resolve().parents[3]
LIFECYCLE = (ROOT / "docs" / "lifecycle.md").read_text()


def table(heading: str) -> list[tuple[str, ...]]:
    """The rows of the table below a heading of the document."""
    section = LIFECYCLE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert re.fullmatch(r"[| -]+", lines[1]), f"{heading}: no table"
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


def public_functions(module: ModuleType) -> set[str]:
    tree = ast.parse(Path(str(module.__file__)).read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {name for name in names if not name.startswith("_")}


def test_the_document_shows_the_table_of_the_code() -> None:
    """Catches: an edge that was added, renamed or explained anew in one of the two places only."""
    assert table("Transitions") == [
        (edge.name, edge.source.value if edge.source else "-", edge.target.value, edge.when) for edge in EDGES
    ]


def test_the_diagram_shows_every_edge_and_no_other() -> None:
    """Catches: a diagram that was not redrawn."""
    drawing = LIFECYCLE.split("```mermaid\n", 1)[1].split("```", 1)[0]
    arrows = re.findall(r"^ *(\S+) --> (\S+?)(?:: (\w+))?$", drawing, re.MULTILINE)
    assert drawing.splitlines()[0] == "stateDiagram-v2"
    assert len(arrows) == len(drawing.splitlines()) - 1
    expected = {(edge.source.value if edge.source else "[*]", edge.target.value, edge.name) for edge in EDGES}
    assert set(arrows) == expected | {(state.value, "[*]", "") for state in FINAL}
    assert len(arrows) == len(set(arrows))


def test_each_edge_has_its_function_and_each_function_is_explained() -> None:
    """Catches: a function that changes a state without an edge, and one that the document does not know."""
    edges = {edge.name for edge in EDGES}
    others = {row[0] for row in table("Writes that change no state")}
    assert edges | others == public_functions(transitions) | public_functions(running)
    assert edges <= public_functions(transitions)
    assert not edges & others


def test_the_document_lists_every_reason() -> None:
    """Catches: a reason without an explanation, or with another one than the code's."""
    assert [(reason, label) for reason, label, _ in table("Reasons")] == [
        (reason.value, reason.label) for reason in Reason if reason is not Reason.NONE
    ]


def test_the_settings_that_the_document_names_exist() -> None:
    """Catches: a setting that was renamed."""
    names = set(re.findall(r"GANTRY_[A-Z_]+", LIFECYCLE))
    assert names
    assert [name for name in sorted(names) if not hasattr(settings, name)] == []


def test_every_state_is_reached_and_only_final_ones_are_never_left() -> None:
    """Catches: a state in which a run would stay for ever."""
    reached = {edge.target for edge in EDGES}
    left = {edge.source for edge in EDGES if edge.source is not None and edge.source is not edge.target}
    assert reached == set(State)
    assert set(State) - left == FINAL
    assert {state for state in State if is_final(state)} == FINAL
    assert not [edge for edge in EDGES if edge.source in FINAL]


def test_the_legal_pairs_are_those_of_the_contract() -> None:
    """The contract's five states and their moves, written out once more by hand."""
    pending, running = State.PENDING, State.RUNNING
    assert {
        (None, pending),
        (pending, running),
        (running, running),
        (running, State.SUCCEEDED),
        (running, State.FAILED),
        (running, State.CANCELLED),
        (running, pending),
        (pending, State.CANCELLED),
        (pending, State.FAILED),
    } == LEGAL
    assert {reason.value for reason in Reason} - {""} == {
        "exit_code", "timeout", "oom", "disk", "image", "create", "runtime", "input", "output", "lost",
        "unreachable", "dropped", "node_gone", "operator", "expired", "rejected",
    }  # fmt: skip
