"""The walk of test_tenant_walk: every route and verb as a question about a victim, and one about nobody.

The routes come from the resolver and their parameters from the OpenAPI document, so a new route is walked
without being named here; one with a parameter that the walk does not know fails until it is taught.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import connection
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from config.http import openapi
from tests.support.fixtures import Account
from workers.models import CallbackSecret, Registry, Run, Secret, Token

CANARY: Final = "canary-7f3a"
QUIET: Final = ("GET", "HEAD", "OPTIONS")
METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
#: Ids are long, so that taking them out of an answer takes nothing else out.
FIRST_ID: Final = 700_000_000
#: The id of something that does not exist.
NOBODY: Final = 888_888_888
NOBODYS_NAME: Final = "nobody-at-all"
NOBODYS_UUID: Final = "88888888-8888-4888-8888-888888888888"
#: Where a caller may make something of its own.
OWN_TABLES: Final = (
    *("workers_token", "workers_idempotencykey", "workers_run", "workers_shape"),
    *("workers_secret", "workers_callbacksecret", "workers_registry", "workers_signingkey"),
    *("queues_queue", "queues_entry", "queues_waitingclass", "queues_ownerholding"),
)
#: Parameters that name nothing of a tenant.
HARMLESS: Final = {
    *(
        "from",
        "to",
        "after",
        "before",
        "method",
        "limit",
        "cursor",
        "family",
        "state",
        "status",
        "kind",
        "created_after",
        "created_before",
        "all_tenants",
        "force",
    ),
    *("stream", "attempt", "offset", "wait", "follow", "tail", "raw", "expires", "signature", "event"),
}
#: Names no body may carry: a name of one's own choice, and an address that anybody may have pinged.
CHOSEN: Final = ("name", "url")
#: Makes something of the caller's own, with a random value and a number: only the status is compared.
MAKES_OWN: Final = {("POST", "/api/v1/callbacks/secrets"), ("POST", "/api/v1/keys")}
#: Where a family is mounted once more.
SECOND_MOUNT: Final = "/workqueue/api/v1.1/"
#: What operators see of everybody by design: not walked as an operator of another tenant.
OPERATORS: Final = re.compile(
    r"/api/v1/(tenants|users|tokens|nodes|audit)\b|/api/v1/queues/[^/]+/(pools|policy|capacity)\b|/metrics$"
)


#: One for all requests, without memory of the one before: a new one loads the middleware again each time.
_client: Final = Client()


@dataclass
class Victim:
    """A tenant with something of everything, and how requests name it."""

    account: Account
    run_ids: list[int]
    token_id: int
    node: str
    values: dict[str, list[str]] = field(default_factory=dict)


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
    if name in ("job_id", "JobId") and not value.isdigit():  # runtask's are numbers
        return NOBODYS_UUID
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
        values = victim.values[first] if first else [""]
        last = values[-1]
        for value in values:
            mine = tuple(value if name == first else victim.values[name][-1] for name in route.names)
            none = tuple(nobodys(name, item) for name, item in zip(route.names, mine, strict=True))
            for method in METHODS:
                operation = documented.get(route.path, {}).get(method.lower(), {})
                if SECOND_MOUNT in route.path and (not operation or value != last):
                    continue  # the same views: enough for its own shapes
                if not operation and first and value != victim.values[first][0]:
                    continue  # a verb that is not there is asked about one of them
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
                    needed = {
                        "name": "walk",
                        "scopes": ["read"],
                        "default": True,
                        "src_filepath": "walk",
                        "dst_filepath": "walk",
                        "username": "u",
                        "password": "p",
                    }
                    about = {name: values[-1] for name, values in victim.values.items() if name not in CHOSEN}
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
    _client.cookies.clear()
    response = _client.generic(
        question.method,
        path,
        question.body,
        "application/json" if question.body else "",
        headers={**who.headers, **headers},
    )
    return response.status_code, response.getvalue().decode(errors="replace")


def rows() -> dict[str, Counter[str]]:
    """Every row of every table, as text; but what a call leaves for the audit log is its caller's."""
    with connection.cursor() as cursor:
        tables = [
            name
            for name in connection.introspection.table_names(cursor)
            if not name.startswith("django_") and name != "workers_auditbegun"
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
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "then", text)
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
        if (asked.method, asked.template) in MAKES_OWN:
            return
        assert without_ids(text, asked) == without_ids(text_of_nobody, nobody), about


def assert_untouched(before: dict[str, Counter[str]], who: Account, victim: Victim) -> None:
    """Every row that was there still is, and new ones belong to whoever asked."""
    made = False
    for table, now in rows().items():
        gone = before[table] - now
        assert not gone, f"{table}: {list(gone)[:3]} changed"
        new = now - before[table]
        made = made or bool(new)
        assert not new or table in OWN_TABLES, (table, new)
    if not made:
        return  # every row is one that was there
    assert not Token.objects.filter(user__username=victim.account.user).exclude(pk=victim.token_id).exists()
    assert Registry.objects.filter(tenant_id=victim.account.tenant_id).count() == 1
    assert Run.objects.filter(tenant_id=victim.account.tenant_id).count() == len(victim.run_ids)
    assert CallbackSecret.objects.filter(tenant_id=victim.account.tenant_id).count() == 1
    assert Secret.objects.filter(tenant_id=victim.account.tenant_id).count() == 3
