"""A lint of our own: nothing but workers/runs/transitions.py writes a run's state.

It reads every module of the project. SQL is found in string literals, f-strings included; Django's ways of
writing are found as calls and assignments. It cannot see a statement that is put together at run time from
parts none of which names the table.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.invariant

ROOT = Path(__file__).resolve().parents[3]
WRITER = ROOT / "workers" / "runs" / "transitions.py"
#: The column's owner, and those whose state column is another thing.
TABLE = "workers_run"
MODELS = {"Run", "Task"}

_UPDATE = re.compile(rf"\bUPDATE\s+(?:ONLY\s+)?\"?{TABLE}\"?(?!\w).*?\bSET\b", re.IGNORECASE | re.DOTALL)
_END_OF_SET = re.compile(r"\(|\)|;|\b(?:FROM|WHERE|RETURNING)\b", re.IGNORECASE)
_ASSIGNS_STATE = re.compile(r"(?:^|,|\()\s*\"?state\"?\s*(?:=|,|\))", re.IGNORECASE)
_INSERT = re.compile(rf"\b(?:INSERT\s+INTO|MERGE\s+INTO|COPY)\s+\"?{TABLE}\"?(?!\w)", re.IGNORECASE)
#: Stands for what an f-string puts in.
_HOLE = "\x00"


def violations(source: str) -> list[tuple[int, str]]:
    """(line, what) of everything in a module that writes, or could write, a run's state."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if id(node) not in inside and (text := _text(node)):
            found += [(node.lineno, what) for what in _in_sql(text)]  # type: ignore[attr-defined]
        found += [(line, what) for line, what in _in_python(node)]
    return sorted(set(found))


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else _HOLE
            for part in node.values
        )
    return ""


def _in_sql(text: str) -> Iterator[str]:
    if _INSERT.search(text):
        yield f"inserts into {TABLE}"
    for statement in _UPDATE.finditer(text):
        changes = _changes(text[statement.end() :])
        if _ASSIGNS_STATE.search(changes):
            yield f"UPDATE {TABLE} SET state"
        if _HOLE in changes:
            yield f"UPDATE {TABLE} SET with a part that is put in"


def _changes(text: str) -> str:
    """What stands between SET and the clause after it; a FROM in brackets, as in extract(), ends nothing."""
    depth = 0
    for match in _END_OF_SET.finditer(text):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth < 0 or (depth == 0 and match[0] not in "()"):
            return text[: match.start()]
    return text


def _in_python(node: ast.AST) -> Iterator[tuple[int, str]]:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    for target in targets:
        for part in ast.walk(target):
            if isinstance(part, ast.Attribute) and part.attr == "state" and isinstance(part.ctx, ast.Store):
                yield part.lineno, "assigns .state"
    if isinstance(node, ast.Call):
        yield from ((node.lineno, what) for what in _in_call(node))


def _in_call(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {keyword.arg for keyword in call.keywords}
    if name in ("update", "update_or_create", "aupdate") and "state" in keywords:
        yield f".{name}(state=...)"
    if name in ("setattr", "__setattr__") and any(_is_state(item) for item in call.args):
        yield "setattr of state"
    if name in ("bulk_update", "abulk_update", "save", "asave"):
        named = [*call.args[1:], *(keyword.value for keyword in call.keywords)]
        if any(_is_state(part) for item in named for part in ast.walk(item)):
            yield f".{name} of state"
    if name in MODELS and keywords and "state" in keywords:
        yield f"{name}(state=...)"
    if (
        name in ("create", "get_or_create", "update_or_create", "bulk_create", "acreate")
        and _model(call) in MODELS
    ):
        yield f"{_model(call)}.objects.{name}"


def _is_state(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == "state"


def _model(call: ast.Call) -> str:
    """Run for Run.objects.create(...) and Run.objects.filter(...).get_or_create(...)."""
    names = [part.id for part in ast.walk(call.func) if isinstance(part, ast.Name)]
    return names[0] if names else ""


def modules() -> list[Path]:
    """Every module of every package of the project, the writer, migrations and tests excepted."""
    packages = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]
    assert {"config", "workers"} <= {package.name for package in packages}
    found = [*ROOT.glob("*.py"), *(path for package in packages for path in package.rglob("*.py"))]
    return [path for path in sorted(found) if path != WRITER and "migrations" not in path.parts]


def test_only_transitions_writes_a_runs_state() -> None:
    """Catches: a state written past the state machine, where no fence, event or reservation goes with it."""
    assert WRITER.is_file()
    found = {
        str(path.relative_to(ROOT)): wrong for path in modules() if (wrong := violations(path.read_text()))
    }
    assert found == {}


def test_the_lint_sees_the_writer_itself() -> None:
    """Catches: a lint that sees nothing any more, because the table or the SQL was renamed."""
    seen = {what for _, what in violations(WRITER.read_text())}
    assert seen == {
        "inserts into workers_run",
        "UPDATE workers_run SET state",
        "UPDATE workers_run SET with a part that is put in",
    }


@pytest.mark.parametrize(
    "source",
    [
        "cursor.execute(\"UPDATE workers_run SET state = 'FAILED' WHERE id = 1\")",
        'cursor.execute(\'update only "workers_run" r set message = %s,\\n "state" = %s from x\')',
        "sql = 'WITH a AS (UPDATE workers_run SET crashes = 1) UPDATE workers_run SET state = %s'",
        "sql = 'UPDATE workers_run SET started_at = extract(epoch FROM now()), state = %s WHERE id = 1'",
        "sql = 'UPDATE workers_run SET (reason, state) = (1, 2)'",
        "sql = f'UPDATE workers_run SET {change} WHERE id = 1'",
        "sql = 'INSERT INTO workers_run (id) VALUES (1)'",
        "run.state = 'FAILED'",
        "a, run.state = 1, 2",
        "run.state: str = 'FAILED'",
        "Run.objects.filter(pk=1).update(state='FAILED')",
        "Run.objects.create(name='x')",
        "Run.objects.bulk_create([])",
        "Run(state='FAILED').save()",
        "Run.objects.bulk_update(runs, ['message', 'state'])",
        "run.save(update_fields=['state'])",
        "setattr(run, 'state', 'FAILED')",
    ],
)
def test_the_lint_catches(source: str) -> None:
    assert violations(source)


@pytest.mark.parametrize(
    "source",
    [
        "cursor.execute(\"SELECT id FROM workers_run WHERE state = 'RUNNING'\")",
        "cursor.execute(\"UPDATE workers_run SET crashes = 0 WHERE state = 'RUNNING'\")",
        "sql = 'UPDATE workers_runevent SET state = 1'",
        "sql = 'UPDATE workers_attempt a SET state = 1 FROM workers_run r'",
        "sql = 'INSERT INTO workers_runevent (run_id) VALUES (1)'",
        "Run.objects.filter(state='RUNNING').update(crashes=0)",
        "state = run.state",
        "node.save(update_fields=['mode'])",
        "Node.objects.create(name='n1')",
    ],
)
def test_the_lint_lets_pass(source: str) -> None:
    assert violations(source) == []
