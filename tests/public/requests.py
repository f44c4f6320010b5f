"""Every documented operation as a request in order, and the same with one value put into a place of it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from config.http import openapi

#: What stands in a path where nothing else is asked: an id of nobody's, in each spelling that a route takes.
_PLAIN = "1"
_UUID = "88888888-8888-4888-8888-888888888888"


@dataclass(frozen=True)
class Asked:
    """One request; its body is JSON."""

    method: str
    template: str
    path: dict[str, str] = field(default_factory=dict)
    query: tuple[str, ...] = ()
    body: Any = None

    @property
    def target(self) -> str:
        """Path and query, in ASCII."""
        path = self.template
        for name, value in self.path.items():
            path = path.replace("{" + name + "}", value)
        return f"{path}?{'&'.join(self.query)}" if self.query else path

    def __str__(self) -> str:
        return f"{self.method} {self.target} {'' if self.body is None else json.dumps(self.body)[:300]}"


def operations() -> Iterator[tuple[Asked, list[str]]]:
    """Each operation with each example of its body; the first with the names of its query's parameters."""
    paths = json.loads(openapi.document(""))["paths"]
    for template, verbs in paths.items():
        shared = verbs.get("parameters", [])
        for verb, told in verbs.items():
            if verb == "parameters":
                continue
            names = re.findall(r"{(\w+)}", template)
            plain = dict.fromkeys(names, _UUID if template.startswith("/api/jobs") else _PLAIN)
            queries = [
                item["name"] for item in [*shared, *told.get("parameters", [])] if item["in"] == "query"
            ]
            for body in _examples(told) or [None]:
                yield Asked(verb.upper(), template, plain, body=body), queries
                queries = []


def _examples(told: dict[str, Any]) -> list[Any]:
    content = told.get("requestBody", {}).get("content", {}).get("application/json", {})
    return [example["value"] for example in content.get("examples", {}).values()]


def with_each_value(value: str, body_value: Any) -> Iterator[Asked]:
    """Each operation with ``value`` (quoted) in a place of its path or query, ``body_value`` in its body."""
    for asked, queries in operations():
        for name in asked.path:
            yield replace(asked, path={**asked.path, name: value})
        for name in queries:
            yield replace(asked, query=(f"{name}={value}",))
        for place in _places(asked.body):
            yield replace(asked, body=_put(asked.body, place, body_value))


def _places(body: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Each leaf of a body of JSON."""
    if isinstance(body, dict | list):
        for key, inner in body.items() if isinstance(body, dict) else enumerate(body):
            yield from _places(inner, (*above, key))
    elif above:
        yield above


def _put(body: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(body)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed
