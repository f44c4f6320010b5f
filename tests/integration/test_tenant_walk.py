"""Every route and verb, called with another tenant's ids: nothing shown, nothing changed, no difference from
ids that do not exist.

The routes come from the resolver and their parameters from the OpenAPI document, so a new route is walked
without being named here; one with a parameter that the walk does not know fails until it is taught. The
owner's own requests prove that the walk could see something.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from config import openapi
from tests.contracts.tasks.conftest import Stage
from tests.support.engine import submit
from tests.support.fixtures import Account, make_account
from workers import services
from workers.models import IdempotencyKey, LogChunk, Node, Run, Secret, Tenant, Token
from workers.states import Reason, State

CANARY: Final = "canary-7f3a"
QUIET: Final = ("GET", "HEAD", "OPTIONS")
METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
#: Ids are long, so that taking them out of an answer takes nothing else out.
FIRST_ID: Final = 700_000_000
#: The id of something that does not exist.
NOBODY: Final = 888_888_888
NOBODYS_NAME: Final = "nobody-at-all"
#: Parameters that name nothing of a tenant.
HARMLESS: Final = {
    *(
        "limit",
        "cursor",
        "family",
        "state",
        "kind",
        "created_after",
        "created_before",
        "all_tenants",
        "force",
    ),
    *("stream", "attempt", "offset", "wait", "follow", "tail", "raw"),
}
#: What operators see of everybody by design: not walked as an operator of another tenant.
OPERATORS: Final = re.compile(r"/api/v1/(tenants|users|tokens|nodes)\b|/metrics$")


@dataclass
class Victim:
    """A tenant with something of everything, and how requests name it."""

    account: Account
    run_ids: list[int]
    token_id: int
    node: str
    values: dict[str, list[str]] = field(default_factory=dict)


@pytest.fixture
def victim(db: None, settings: Any) -> Victim:
    settings.TOKEN_CACHE_S = 60
    with connection.cursor() as cursor:
        for table in ("workers_run", "workers_token"):
            cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [table, FIRST_ID])
    account = make_account(f"{CANARY}-tenant")
    Tenant.objects.filter(pk=account.tenant_id).update(title=f"{CANARY}-title")
    Token.objects.filter(user__username=account.user).update(name=f"{CANARY}-token")
    stage = Stage()
    ids = [
        submit(
            account.tenant_id,
            f"echo {CANARY}-command",
            name=f"{CANARY}-name",
            env={"A": f"{CANARY}-env"},
            callback_url=f"http://{CANARY}.example/",
        )
        for _ in range(3)
    ]
    stage.start(ids[1])
    stage.end(ids[2], State.FAILED, Reason.EXIT_CODE, f"{CANARY}-message", 3)
    for run_id in ids[1:]:
        LogChunk.objects.create(
            run_id=run_id, attempt=1, stream=1, offset=0, data=f"{CANARY}-output\n".encode()
        )
    Secret.objects.create(tenant_id=account.tenant_id, purpose=f"{CANARY}-purpose", ciphertext=b"x")
    IdempotencyKey.objects.create(
        tenant_id=account.tenant_id, method="POST", path="/v1/tasks", key="k", body_digest="0" * 64
    )
    token_id = Token.objects.get(user__username=account.user).pk
    runs = [str(run_id) for run_id in ids]
    values = {
        "run_id": runs,
        "task_id": runs,
        "taskId": runs,
        "taskIds": [*runs, ",".join(runs)],
        "owner": runs,
        "token_id": [str(token_id)],
        "user": [account.user],
        "name": [f"{CANARY}-name", account.tenant],
        "node": [stage.node.name],
    }
    return Victim(account, ids, token_id, stage.node.name, values)


@dataclass(frozen=True)
class Route:
    """One path of the resolver; ``path`` has {parameters} as the OpenAPI document spells them."""

    path: str
    names: tuple[str, ...]


def routes() -> list[Route]:
    """Every route but the admin's pages, which have their own users and tests."""
    found = []

    def walk(patterns: Any, prefix: str) -> None:
        for pattern in patterns:
            route = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                walk(pattern.url_patterns, route)
            elif isinstance(pattern, URLPattern):
                names = tuple(re.findall(r"<(?:\w+:)?(\w+)>", route))
                found.append(Route("/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route), names))

    walk(get_resolver().url_patterns, "")
    return [route for route in found if not route.path.startswith("/admin/")]


@dataclass(frozen=True)
class Question:
    """A request, with the victim's values and with nobody's."""

    method: str
    template: str
    names: tuple[str, ...]
    values: tuple[str, ...]
    query: str = ""
    body: str = ""

    def path(self, values: tuple[str, ...] | None = None) -> str:
        path = self.template
        for name, value in zip(self.names, values or self.values, strict=True):
            path = path.replace("{" + name + "}", value)
        return path

    @property
    def names_something(self) -> bool:
        return bool(self.names or self.query or self.body)


def nobodys(name: str, value: str) -> str:
    """The value for something that does not exist, of the same kind."""
    if re.fullmatch(r"[\d,]+", value):
        return ",".join(str(NOBODY + number) for number, _ in enumerate(value.split(",")))
    return NOBODYS_NAME


def questions(victim: Victim) -> Iterator[tuple[Question, Question]]:
    """(about the victim, about nobody) for every route, verb, id and parameter."""
    documented = json.loads(openapi.document(""))["paths"]
    for route in routes():
        unknown = set(route.names) - set(victim.values)
        assert not unknown, f"teach the walk what {unknown} of {route.path} is"
        first = route.names[0] if route.names else None
        for value in victim.values[first] if first else [""]:
            mine = tuple(value if name == first else victim.values[name][-1] for name in route.names)
            none = tuple(nobodys(name, item) for name, item in zip(route.names, mine, strict=True))
            for method in METHODS:
                operation = documented.get(route.path, {}).get(method.lower(), {})
                yield (
                    Question(method, route.path, route.names, mine),
                    Question(method, route.path, route.names, none),
                )
                for query, nobody in _queries(victim, route, operation):
                    yield (
                        Question(method, route.path, route.names, mine, query),
                        Question(method, route.path, route.names, none, nobody),
                    )
                if method in ("POST", "PUT", "PATCH"):
                    # The fields that creating requests need are there too: refusals come from the ids.
                    needed = {"name": "walk", "scopes": ["read"], "default": True}
                    about = {name: values[-1] for name, values in victim.values.items() if name != "name"}
                    nothing = {name: nobodys(name, item) for name, item in about.items()}
                    yield (
                        Question(method, route.path, route.names, mine, "", json.dumps({**about, **needed})),
                        Question(
                            method, route.path, route.names, none, "", json.dumps({**nothing, **needed})
                        ),
                    )


def _queries(victim: Victim, route: Route, operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] != "query" or parameter["name"] in HARMLESS:
            continue
        name = parameter["name"]
        assert name in victim.values, f"teach the walk what ?{name}= of {route.path} is"
        for value in victim.values[name]:
            yield f"{name}={value}", f"{name}={nobodys(name, value)}"


def ask(who: Account, question: Question, **headers: str) -> tuple[int, str]:
    """Status and text of the answer."""
    path = question.path() + (f"?{question.query}" if question.query else "")
    response = Client().generic(
        question.method,
        path,
        question.body,
        "application/json" if question.body else "",
        headers={**who.headers, **headers},
    )
    return response.status_code, response.getvalue().decode(errors="replace")


def rows() -> dict[str, Counter[str]]:
    """Every row of every table, as text."""
    with connection.cursor() as cursor:
        tables = [
            name for name in connection.introspection.table_names(cursor) if not name.startswith("django_")
        ]
        cursor.execute(
            " UNION ALL ".join(f"SELECT '{table}', t::text FROM \"{table}\" t" for table in tables)
        )
        found: dict[str, Counter[str]] = {table: Counter() for table in tables}
        for table, row in cursor.fetchall():
            found[table][row] += 1
    return found


def without_ids(text: str, question: Question) -> str:
    """The answer with everything that the question itself named taken out."""
    named = {item for value in question.values for item in (value, *value.split(","))}
    for pair in filter(None, question.query.split("&")):
        value = pair.partition("=")[2]
        named |= {value, *value.split(",")}
    for value in json.loads(question.body).values() if question.body else ():
        if isinstance(value, str):
            named |= {value, *value.split(",")}
    for item in sorted(named - {""}, key=len, reverse=True):
        text = text.replace(item, "#")
    return text


def assert_blind(who: Account, victim: Victim, asked: Question, nobody: Question) -> None:
    """The answer shows nothing of the victim and is the same as for something that does not exist."""
    status, text = ask(who, asked)
    about = f"{asked.method} {asked.path()}?{asked.query} {asked.body} -> {status} {text[:300]}"
    assert status != 500, about
    assert CANARY not in without_ids(text, asked), about
    if asked.names_something:
        status_of_nobody, text_of_nobody = ask(who, nobody)
        assert status == status_of_nobody, about
        assert without_ids(text, asked) == without_ids(text_of_nobody, nobody), about


def assert_untouched(before: dict[str, Counter[str]], who: Account, victim: Victim) -> None:
    """Every row that was there still is, and new ones belong to whoever asked."""
    for table, now in rows().items():
        gone = before[table] - now
        assert not gone, f"{table}: {list(gone)[:3]} changed"
        new = now - before[table]
        if new:
            assert table in ("workers_token", "workers_idempotencykey", "workers_run", "workers_shape"), (
                table,
                new,
            )
    assert not Token.objects.filter(user__username=victim.account.user).exclude(pk=victim.token_id).exists()
    assert Run.objects.filter(tenant_id=victim.account.tenant_id).count() == len(victim.run_ids)


def stable(victim: Victim, asked: Question) -> bool:
    """Nodes are everybody's: what they say of themselves differs from what no node says."""
    return not (asked.template.startswith("/api/v1/nodes/") and victim.node in asked.values)


@pytest.mark.timeout(300)
def test_a_stranger_sees_and_changes_nothing(victim: Victim) -> None:
    stranger = make_account("stranger", scopes=("read", "submit", "worker"))
    operator = make_account("elsewhere", scopes=("read", "submit", "operate", "worker"))
    before = rows()
    asked_for = 0
    for asked, nobody in questions(victim):
        for who in (stranger, operator):
            if who is operator and OPERATORS.search(asked.template):
                continue
            asked_for += 1
            if asked.method in QUIET:
                assert_blind(who, victim, asked, nobody)
                continue
            with transaction.atomic():
                assert_blind(who, victim, asked, nobody)
                assert_untouched(before, who, victim)
                transaction.set_rollback(True)
    assert rows() == before, "a request that only reads changed something"
    assert asked_for > 300, "the walk has lost its way"


def test_the_victims_name_in_the_header_is_refused_everywhere(victim: Victim) -> None:
    stranger = make_account("stranger", scopes=("read", "submit", "operate", "worker"))
    public = {"/healthz", "/readyz"}
    before = rows()
    for asked, _ in questions(victim):
        if asked.template in public:
            continue
        status, text = ask(stranger, asked, **{"X-Tenant-Id": victim.account.tenant})
        assert status == 403, (asked, status)
        assert CANARY not in text
    assert rows() == before


def test_the_owner_sees_and_changes_what_the_stranger_could_not(victim: Victim) -> None:
    """The walk must be able to fail: for its owner every route that takes an id answers otherwise."""
    owner = victim.account
    owners = make_account(owner.tenant, scopes=("read", "submit", "operate", "worker"))
    shown: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    before = rows()
    wanted: set[str] = set()
    documented = json.loads(openapi.document(""))["paths"]
    for asked, nobody in questions(victim):
        if (
            asked.method.lower() not in documented.get(asked.template, {})
            or not asked.names_something
            or asked.body
        ):
            continue
        if OPERATORS.search(asked.template) and "tokens" not in asked.template:
            continue
        key = f"{asked.method} {asked.template}"
        wanted.add(key)
        for who in (owner, owners):
            with transaction.atomic():
                answer = ask(who, asked)
                after = before if asked.method in QUIET else rows()
                transaction.set_rollback(True)
            with transaction.atomic():
                nobodys_answer = ask(who, nobody)
                transaction.set_rollback(True)
            if (
                without_ids(answer[1], asked) != without_ids(nobodys_answer[1], nobody)
                or answer[0] != nobodys_answer[0]
            ):
                shown[key] += 1
            if before != after:
                changed[key] += 1
    unseen = {key for key in wanted if not shown[key]}
    assert not unseen, f"the owner's requests look like a stranger's: {unseen}"
    for key in (
        "POST /v1/tasks/kill",
        "POST /api/v1/runs/{run_id}/cancel",
        "POST /api/v1/runs/{run_id}/retry",
        "DELETE /api/v1/tokens/{token_id}",
    ):
        assert changed[key], f"{key} changed nothing for its owner"


def test_explanations_name_no_other_tenant(victim: Victim) -> None:
    stranger = make_account("stranger")
    Node.objects.update(cpu_m_used=Node.objects.get().cpu_m_total)
    run_id = submit(stranger.tenant_id, "true", cpu=2)
    for path in (
        f"/api/v1/runs/{run_id}/explain",
        f"/v1/tasks/{run_id}/explain",
        f"/v1/tasks?taskIds={run_id}",
    ):
        status, text = ask(stranger, Question("GET", path, (), ()))
        assert status == 200, text
        assert CANARY not in text
        assert "CPU" in text, "the reason is there, whose work it is not"


@pytest.mark.parametrize(
    ("method", "path", "notices"),
    [
        ("GET", "/api/v1/runs/{run_id}", "canary"),
        ("GET", "/api/v1/runs/{run_id}/logs", "canary"),
        ("POST", "/api/v1/runs/{run_id}/cancel", "-> 200"),
    ],
)
def test_the_walk_notices_a_hole(
    victim: Victim, monkeypatch: pytest.MonkeyPatch, method: str, path: str, notices: str
) -> None:
    """A look-up that forgets the tenant is found by the same assertions."""
    stranger, before, find = make_account("stranger"), rows(), services.find
    value, none = str(victim.run_ids[-1 if method == "GET" else 0]), str(NOBODY)
    asked, nobody = (Question(method, path, ("run_id",), (item,)) for item in (value, none))
    assert_blind(stranger, victim, asked, nobody)
    monkeypatch.setattr(services, "find", lambda tenant_id, run_id: find(None, run_id))
    with pytest.raises(AssertionError, match=notices):
        assert_blind(stranger, victim, asked, nobody)
    if method == "POST":
        with pytest.raises(AssertionError, match="workers_run"):
            assert_untouched(before, stranger, victim)
