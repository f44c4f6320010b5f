"""Runs with inputs and outputs in a Swift, for tests of the engine's own part: no family in between."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from tests.support.engine import submit
from tests.support.swift import Swift
from workers import services
from workers.vocabulary.specs import ProcessSpec, Spec
from workers.vocabulary.staging import Input, Output, Store

#: What a node needs in order to reach a Swift of the tests.
OPEN = {"GANTRY_SWIFT_ALLOW_NETWORKS": "127.0.0.0/8"}


def place(path: str) -> str:
    """``container/object`` as a URL."""
    return f"swift://{quote(path)}"


def inputs(*paths: str, **more: Any) -> list[dict[str, Any]]:
    """Objects (container/object), to in/0/<name>, in/1/<name> and so on."""
    return [
        Input(url=place(path), store=0, path=f"in/{n}/{path.rpartition('/')[2]}", **more).to_json()
        for n, path in enumerate(paths)
    ]


def outputs(*paths: str) -> list[dict[str, Any]]:
    """Objects (container/object), from out/0, out/1 and so on."""
    return [Output(url=place(path), store=0, path=f"out/{n}").to_json() for n, path in enumerate(paths)]


def stdout(path: str) -> list[dict[str, Any]]:
    """What it writes to its standard output, as an object."""
    return [Output(url=place(path), store=0, stream="stdout", make_container=True).to_json()]


def staged(tenant_id: int, swift: Swift | Store, command: str, spec: Spec | None = None, **more: Any) -> int:
    """Submit a shell command with ``inputs`` and ``outputs``; returns the run's id."""
    store = swift if isinstance(swift, Store) else swift.store()
    keys = ("inputs", "outputs", "log_head", "log_tail", "env")
    given = {key: more.pop(key) for key in keys if key in more}
    made = ProcessSpec(
        argv=["/bin/sh", "-c", command],
        cpu_m=100,
        mem_mb=32,
        stores=[{**store.to_json(), "key": store.key}],
        **given,
    )
    more.setdefault("name", "staged")
    return services.submit(
        services.Submission(tenant_id=tenant_id, family="tasks", spec=spec or made, **more)
    )


__all__ = ["OPEN", "inputs", "outputs", "place", "staged", "stdout", "submit"]
