"""POST /v1/tasks: from the request's JSON to what the engine runs.

Pure: no database, no HTTP. Every refusal is an error of ``tasks_api.codes`` that names the field, the
problem and the fix. Sources: contract page 10 (Body, Defaults) and seed 004.

Choices where the documents leave one:

- ``env`` is not read as a plain mapping {"A": "b"}: a mapping with the variables "name" and "value" looks
  exactly like the documented object, so a mapping would be misread depending on its content. It is
  refused with the right spelling in the message.
- ``retry`` is clamped to 0..100, silently, as cpu and mem are and as the original does with what is
  negative; the task object shows the value in force.
- ``args`` is checked with commands too, where it has no effect, as the original checks it.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Final

from tasks_api import containers, fields
from tasks_api.codes import Malformed, Missing, NotAllowed
from tasks_api.containers import Ranges, check
from workers.tenants.bounds import NO_BOUNDS, Bounds
from workers.vocabulary.specs import ContainerSpec, ProcessSpec

CPU_DEFAULT, CPU_LEAST, CPU_MOST = 1.0, 0.1, 16.0
MEM_DEFAULT, MEM_LEAST, MEM_MOST = 512, 256, 16384
RETRY_MOST: Final = 100
URIS_MOST: Final = 100
CONSTRAINT_VALUES_MOST: Final = 1000

ANY_PORT: Final = ((1, 65535),)

#: The engine's priorities (0 first, 9 last) for the family's two.
HIGH, NORMAL = 1, 5


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """A submission that has passed every check. ``priority`` and ``retries`` are the engine's."""

    name: str
    spec: ProcessSpec | ContainerSpec
    constraints: dict[str, list[str]] = field(default_factory=dict)
    priority: int = NORMAL
    retries: int = 0
    callback_url: str = ""


def parse(
    body: object,
    allowed: Collection[str],
    bounds: Bounds = NO_BOUNDS,
    host_ports: Ranges = ANY_PORT,
) -> TaskRequest:
    """Check a submission. ``allowed``: the dangerous things that the tenant's policy opens
    (commands, privileged, host_network, volumes, parameters, host_ports); ``bounds``: what bounds them;
    ``host_ports``: the operator's ranges."""
    if body is None:
        raise Missing("the request body is empty: send a task as a JSON object")
    if not isinstance(body, dict):
        raise Malformed(f"the request body is {fields.kind(body)}: it must be a JSON object")
    name = fields.required(fields.short(body.get("taskName"), "taskName"), "taskName", "give the task a name")
    cpu_m, mem_mb = _resources(fields.mapping(body.get("resources"), "resources"))
    env = _environment(body)
    uris = _uris(body.get("uris"))
    args = _args(body.get("args"))
    container = containers.asked(body.get("container"))
    commands = (
        "" if fields.unused(body.get("commands")) else fields.argument(body.get("commands"), "commands")
    )
    spec: ProcessSpec | ContainerSpec
    if container and commands.strip():
        raise NotAllowed("both container and commands are given: a task is one of them, remove the other")
    if container:
        spec = replace(
            containers.spec(container, allowed, bounds, host_ports),
            args=args,
            env=env,
            uris=uris,
            cpu_m=cpu_m,
            mem_mb=mem_mb,
        )
    elif commands.strip():
        check(allowed, "commands", "commands")
        argv = ["/bin/sh", "-c", commands]
        spec = ProcessSpec(argv=argv, env=env, uris=uris, cpu_m=cpu_m, mem_mb=mem_mb)
    else:
        raise Missing("container or commands is missing: give one of them (a container needs docker.image)")
    return TaskRequest(
        name=name,
        spec=spec,
        constraints=_constraints(fields.mapping(body.get("constraints"), "constraints")),
        priority=_priority(body.get("priority")),
        retries=_retries(body.get("retry")),
        callback_url=fields.callback_url(body.get("callbackUrl"), "callbackUrl"),
    )


def _resources(given: dict[str, object]) -> tuple[int, int]:
    """Thousandths of a CPU and MiB. ``role`` has no effect."""
    cpu = fields.clamped(given.get("cpu"), "resources.cpu", CPU_DEFAULT, CPU_LEAST, CPU_MOST)
    mem = fields.clamped(given.get("mem"), "resources.mem", MEM_DEFAULT, MEM_LEAST, MEM_MOST)
    return round(cpu * 1000), math.ceil(mem)


def _environment(body: dict[str, object]) -> dict[str, str]:
    """``env`` (one object or a list of them), then ``envs``, which override it."""
    env: dict[str, str] = {}
    single = body.get("env")
    if isinstance(single, dict) and single:
        _variable(env, single, "env")
    else:
        for name, item in fields.objects(single, "env", secret=True):
            _variable(env, item, name)
    several = body.get("envs")
    if isinstance(several, dict) and several:
        _variable(env, several, "envs")
    else:
        for name, item in fields.objects(several, "envs", secret=True):
            _variable(env, item, name)
    return env


def _variable(env: dict[str, str], item: dict[str, object], where: str) -> None:
    """One {name, value}. The value never stands in a message: it may be a secret."""
    name = fields.text(item.get("name"), f"{where}.name").strip()
    if not name:
        raise Malformed(f'{where} has no name: write {{"name": "COLOR", "value": "red"}}', field=where)
    if "=" in name:
        raise Malformed(
            f'{where}.name has "=" after {fields.show(name.partition("=")[0])}: give what follows as value',
            field=f"{where}.name",
        )
    if item.get("value") is None:
        raise Malformed(f'{where} ({fields.show(name)}) has no value: use "" for an empty one', field=where)
    value = fields.argument(item["value"], f"{where}.value")
    if len((name + value).encode()) + 1 > fields.LONGEST_ARGUMENT:
        raise NotAllowed(
            f"{where} ({fields.show(name)}) is too long for a process's environment", field=where
        )
    env[name] = value


def _args(given: object) -> list[str]:
    args = []
    for name, item in fields.items(given, "args", secret=True):
        if isinstance(item, dict | list) or item is None:
            raise Malformed(f"{name} is {fields.kind(item)}: it must be text", field=name)
        value = fields.argument(item, name)
        args.append(value)
    return args


def _uris(given: object) -> list[str]:
    uris = [
        fields.required(fields.http_url(item, name), name, "name a file by its http:// or https:// URL")
        for name, item in fields.items(given, "uris", secret=True)
    ]
    if len(uris) > URIS_MOST:
        raise NotAllowed(f"uris has {len(uris)} entries: at most {URIS_MOST} are allowed", field="uris")
    return uris


def _constraints(given: dict[str, object]) -> dict[str, list[str]]:
    if not given:
        return {}
    attribute = fields.short(given.get("field"), "constraints.field").lower()
    fields.required(attribute, "constraints.field", "use rack_id or hostname")
    if attribute not in ("rack_id", "hostname"):
        raise NotAllowed(
            f"constraints.field is {fields.show(given['field'])}: it must be rack_id or hostname",
            field="constraints.field",
        )
    values = set()
    for name, item in fields.items(given.get("values"), "constraints.values"):
        value = fields.short(item, name)
        if not value:
            raise NotAllowed(f"{name} is blank: remove it", field=name)
        values.add(value)
    if not values:
        raise Missing(
            f"constraints.values is missing or empty: name at least one {attribute}",
            field="constraints.values",
        )
    if len(values) > CONSTRAINT_VALUES_MOST:
        raise NotAllowed(
            f"constraints.values has {len(values)} entries: at most {CONSTRAINT_VALUES_MOST} are allowed",
            field="constraints.values",
        )
    return {attribute: sorted(values)}


def _priority(given: object) -> int:
    """1 (also 1.0 and "1") is high; anything else is normal, whatever it is."""
    if isinstance(given, str):
        return HIGH if given.strip() in ("1", "1.0") else NORMAL
    return HIGH if given == 1 and given is not True else NORMAL


def _retries(given: object) -> int:
    wanted = fields.whole(given, "retry")
    return 0 if wanted is None else int(min(max(wanted, 0), RETRY_MOST))
